"""Resume a step where it was stopped: what is finished lies in a hidden folder, with a line about each job."""

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

    about : what its content depends on, ready for JSON: hashes of the inputs, options, seeds. If a stopped run left a
        folder with the same, it is resumed; any other is removed
    size : bytes that the folder takes; raises UserError if there is no room for a new one
    make : makes the files of rows in a new folder; a resumed one has them

    A job's line has the checksums of its rows: after a power cut some may not be on the disk.
    """

    def __init__(self, output: Path, about: Mapping, size: int, make: Callable[[Path], dict[str, Rows]]):
        self.root = output.with_name(f".{output.name}.part")
        self.folder, self.journal = self.root / output.name, self.root / JOURNAL
        self.about = json.loads(json.dumps({"version": version(), **about}))  # as a file gives it back
        self.offsets: dict[int, int] = {}  # byte at which the line of each finished job begins in the journal
        self.count = 0  # finished rows
        self.rows = self._resume()
        if not self.rows:
            self.remove()
            require_space(output.parent, size)
            self.folder.mkdir(parents=True)
            self._write_about({})  # first, so that the folder is recognised as this project's
            try:
                self.rows = make(self.folder)
                self._write_about(self.rows)
            except BaseException:
                self.remove()
                raise

    def _write_about(self, rows: dict[str, Rows]) -> None:
        files = {name: [one.path.name, one.start, one.shape, one.dtype] for name, one in rows.items()}
        write_json(self.root / ABOUT, {"about": self.about, "files": files})

    def _resume(self) -> dict[str, Rows]:
        """Return the files of a stopped run with the same `about`, and note its finished jobs; {} if there is none."""
        try:
            before = read_json(self.root / ABOUT, "", ("about", "files"))
        except UserError:  # there is none, or it was stopped while that was written
            return {}
        rows = {name: Rows(self.folder / file, start, tuple(shape), dtype)
                for name, (file, start, shape, dtype) in before["files"].items()}
        if before["about"] != self.about or not all(one.path.is_file() for one in rows.values()):
            return {}
        lines = self.journal.read_bytes().splitlines(keepends=True) if self.journal.is_file() else []
        with atomic_path(self.journal) as temporary, open(temporary, "wb") as file:
            for line in tqdm(lines, desc="checking what is finished", unit="part", leave=False, disable=None):
                content = _read_line(line, rows)
                if content:
                    self.offsets[content["job"]] = file.tell()
                    self.count += len(content["places"])
                    file.write(line)
        return rows

    def unfinished_jobs(self, jobs: int) -> list[int]:
        """List which of so many jobs are not finished."""
        return [job for job in range(jobs) if job not in self.offsets]

    def add(self, job: int, places: Sequence[int], crcs: dict[str, int], content: object = None) -> None:
        """Note that a job's rows are written at their places; keep its `content`, ready for JSON."""
        line = json.dumps({"job": job, "places": list(places), "crcs": crcs, "content": content})
        with open(self.journal, "ab") as file:
            self.offsets[job] = file.tell()
            file.write(f"{line}\n".encode())
        self.count += len(places)

    def contents(self, jobs: Sequence[int]) -> Iterator:
        """Iterate over the contents that `add` kept for these jobs, in their order."""
        with open(self.journal, "rb") as file:
            for job in jobs:
                file.seek(self.offsets[job])
                yield json.loads(file.readline())["content"]

    def discard(self) -> None:
        """Take no job for finished, so that nothing is kept."""
        self.offsets = {}

    def remove(self) -> None:
        """Remove all of it; raises UserError if the folder is not this project's."""
        if self.root.exists():
            files = (path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("."))
            if not (self.root / ABOUT).is_file() and any(files):
                raise UserError(f"{self.root} is there already, and no stopped step left it; move it away, or name "
                                "another folder with --work")
            shutil.rmtree(self.root)


def _read_line(line: bytes, rows: dict[str, Rows]) -> dict | None:
    """Read a line of the journal; None if it is broken, or if the job's rows are not as they were written."""
    try:
        content = json.loads(line)
    except ValueError:  # stopped while it was written
        return None
    intact = all(rows[name].crc(content["places"]) == crc for name, crc in content["crcs"].items())
    return content if intact else None


@contextmanager
def unfinished(output: Path, rows: str, about: Mapping, size: int, make: Callable[[Path], dict[str, Rows]]
               ) -> Iterator[Unfinished]:
    """Write the folder `output` job by job, see `Unfinished`; it is put in place when all jobs are finished.

    After a stop the finished jobs are kept for the next run with the same `about`; if none is finished, nothing is
    kept. `rows` is what messages call the rows.
    """
    part = Unfinished(output, about, size, make)
    if part.offsets:
        print(f"note: {part.count:,} {rows} were finished when this was stopped; going on from there", flush=True)
    try:
        yield part
        replace_folder(output, part.folder)
        part.discard()
    except KeyboardInterrupt:
        if part.offsets:
            raise KeyboardInterrupt(f"stopped; {part.count:,} {rows} are finished, and the same command goes on from "
                                    "there") from None
        raise
    finally:
        if not part.offsets:
            part.remove()
