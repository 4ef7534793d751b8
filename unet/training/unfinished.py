"""A step that goes on where it was stopped: what is finished lies in a hidden folder, with a line about each part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from unet.citations import version
from unet.inputs.rows import Rows
from utils import UserError, atomic_path, read_json, replace_folder, require_space, write_json

ABOUT, JOURNAL = "about.json", "finished.jsonl"  # beside the folder that is being written


class Unfinished:
    """The output folder of a step while it is written, `.<name>.part/<name>`, and which of its jobs are finished.

    about : what its content depends on, ready for JSON: inputs' hashes, options, seeds. A folder that was left by a run
        with the same goes on; another one is removed
    needed : bytes that it takes; raises UserError where a new one has no room
    make : makes the files of rows in a new folder; those of one that goes on are there

    A job's line has the checksums of its rows: after a power cut some may not have come to the disk.
    """

    def __init__(self, output: Path, about: Mapping, needed: int, make: Callable[[Path], dict[str, Rows]]):
        self.room = output.with_name(f".{output.name}.part")
        self.folder, self.journal = self.room / output.name, self.room / JOURNAL
        self.about = json.loads(json.dumps({"version": version(), **about}))  # as a file gives it back
        self.lines: dict[int, int] = {}  # of each finished job, where its line begins in the journal, bytes
        self.count = 0  # rows that are finished
        self.rows = self._left()
        if not self.rows:
            self.remove()
            require_space(output.parent, needed)
            self.folder.mkdir(parents=True)
            self._note({})  # first: what is in there is known as ours from now on
            try:
                self.rows = make(self.folder)
                self._note(self.rows)
            except BaseException:
                self.remove()
                raise

    def _note(self, rows: dict[str, Rows]) -> None:
        files = {name: [one.path.name, one.start, one.shape, one.dtype] for name, one in rows.items()}
        write_json(self.room / ABOUT, {"about": self.about, "files": files})

    def _left(self) -> dict[str, Rows]:
        """The files of a run that was stopped with the same to do, whose finished jobs are known then; else none."""
        try:
            before = read_json(self.room / ABOUT, "", ("about", "files"))
        except UserError:  # none, or stopped while that was written
            return {}
        rows = {name: Rows(self.folder / file, start, tuple(shape), dtype)
                for name, (file, start, shape, dtype) in before["files"].items()}
        if before["about"] != self.about or not all(one.path.is_file() for one in rows.values()):
            return {}
        lines = self.journal.read_bytes().splitlines(keepends=True) if self.journal.is_file() else []
        with atomic_path(self.journal) as temporary, open(temporary, "wb") as file:
            for line in tqdm(lines, desc="checking what is kept", unit="part", leave=False, disable=None):
                content = _finished(line, rows)
                if content:
                    self.lines[content["job"]] = file.tell()
                    self.count += len(content["places"])
                    file.write(line)
        return rows

    def left(self, jobs: int) -> list[int]:
        """Which of so many jobs are not finished."""
        return [job for job in range(jobs) if job not in self.lines]

    def add(self, job: int, places: Sequence[int], crcs: dict[str, int], content: object = None) -> None:
        """Note that a job's rows are written at their places, and what there is to keep of it, ready for JSON."""
        line = json.dumps({"job": job, "places": list(places), "crcs": crcs, "content": content})
        with open(self.journal, "ab") as file:
            self.lines[job] = file.tell()
            file.write(f"{line}\n".encode())
        self.count += len(places)

    def contents(self, jobs: Sequence[int]) -> Iterator:
        """What was kept of jobs, in their order."""
        with open(self.journal, "rb") as file:
            for job in jobs:
                file.seek(self.lines[job])
                yield json.loads(file.readline())["content"]

    def discard(self) -> None:
        """Take nothing for finished, so that nothing is kept."""
        self.lines = {}

    def remove(self) -> None:
        """Remove all of it; raises UserError where the folder is somebody else's."""
        if self.room.exists():
            others = (path for path in self.room.rglob("*") if path.is_file() and not path.name.startswith("."))
            if not (self.room / ABOUT).is_file() and any(others):
                raise UserError(f"{self.room} is there already, and no stopped step left it; move it away, or name "
                                "another folder with --work")
            shutil.rmtree(self.room)


def _finished(line: bytes, rows: dict[str, Rows]) -> dict | None:
    """What a line says of a job whose rows are as they were written; else None."""
    try:
        content = json.loads(line)
    except ValueError:  # stopped while it was written
        return None
    whole = all(rows[name].crc(content["places"]) == crc for name, crc in content["crcs"].items())
    return content if whole else None


@contextmanager
def unfinished(output: Path, rows: str, about: Mapping, needed: int, make: Callable[[Path], dict[str, Rows]]
               ) -> Iterator[Unfinished]:
    """Write the folder `output` job by job, see `Unfinished`; it takes its place when all went well.

    After a stop what is finished is kept for the next run with the same `about`; nothing is where no job is finished.
    `rows` is what rows are called.
    """
    one = Unfinished(output, about, needed, make)
    if one.lines:
        print(f"note: {one.count:,} {rows} were finished when this was stopped; going on from there", flush=True)
    try:
        yield one
        replace_folder(output, one.folder)
        one.discard()
    except KeyboardInterrupt:
        if one.lines:
            raise KeyboardInterrupt(f"stopped; {one.count:,} {rows} are finished, and the same command goes on from "
                                    "there") from None
        raise
    finally:
        if not one.lines:
            one.remove()
