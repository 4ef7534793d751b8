"""Run what `make` asks for: choose data, folder and number of copies, run the scripts, remove what they made.

    python -m unet.pipeline run     run the three scripts, one after the other
    python -m unet.pipeline report  write the page about the last run
    python -m unet.pipeline images  draw the pictures of README and docs, from a run on the demo stack
    python -m unet.pipeline clean   remove only what runs and the demo made
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from unet.system.signals import end_at_once

if __name__ == "__main__":
    end_at_once()
    sys.argv[0] = "make"  # that is what the user typed: error messages begin with it

import augmentation
import preprocessing
from datasets import examine
from unet.inputs.demo import DEMO_FILES, DEMO_MARK, demo_files, make_demo
from unet.inputs.layouts import Layout, layout_of
from unet.system.workers import run_python
from unet.training import copies as planning
from unet.training.folder import remove, remove_run, run_folder
from unet.training.plan import task_for
from utils import Parser, UserError, run

ROOT = Path(__file__).resolve().parent.parent
DATA, DEMO, WORK = Path("data"), Path("data/demo"), Path("results")
DEMO_WORK = WORK / "demo"
NOT_DATA = ("README.md", DEMO.name)  # the project's own in DATA; everything else is the user's


@dataclass(frozen=True)
class RunOptions:
    """The folders and options of a run; `augment`, `tile` and `train` are further options of the three scripts."""

    data: Path
    work: Path
    out: Path | None  # None: as train.py names it
    preset: str
    augment: list[str]
    tile: list[str]
    train: list[str]

    def commands(self, copies: float | None) -> list[list[str]]:
        """Return the three scripts with their options; `copies` is None if step 1 or the user decides the number."""
        work = ["--work", str(self.work)]
        out = ["--out", str(self.out)] if self.out else []
        number = [] if copies is None else ["--copies", str(copies)]
        return [["augmentation.py", "--data", str(self.data), *work, *number, *self.augment],
                ["preprocessing.py", *work, *self.tile],
                ["train.py", *work, *out, "--preset", self.preset, *self.train]]


def run_options(args: argparse.Namespace) -> RunOptions:
    """Fill in the defaults: the data are the user's files in data/, or the demo if there are none."""
    data = Path(args.data or (DATA if has_users_files(DATA) else DEMO)).expanduser()
    with_demo = is_demo(data)
    work = Path(args.work or (DEMO_WORK if with_demo else WORK)).expanduser()
    # the demo never replaces another run's prediction
    out = Path(args.out).expanduser() if args.out else work / "prediction.tif" if with_demo else None
    return RunOptions(data, work, out, args.preset or ("fast" if with_demo else "auto"),
                *(shlex.split(words) for words in (args.augment, args.tile, args.train)))


def is_demo(data: Path) -> bool:
    """Tell whether a folder is the demo's, however its path is written."""
    return data.resolve() == DEMO.resolve()


def has_users_files(folder: Path) -> bool:
    """Tell whether data/ holds anything that is neither the demo nor the project's own."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return any(name not in NOT_DATA and not name.startswith(".") for name in names)


def readable(data: Path) -> Layout:
    """Return the layout of a folder; if it cannot be trained on, print a report on it and raise UserError."""
    try:
        return layout_of(data)
    except UserError:
        if not data.is_dir():
            raise
        print(examine(data)[0], flush=True)  # for images it raises that error again, which names the file
        raise UserError(f"{data} cannot be used as it is, so nothing was run; fix the problems above, or run the demo "
                        f"with 'make DATA={DEMO}'") from None


def scheduled_copies(run_with: RunOptions, layout: Layout) -> float | None:
    """Return how many augmented copies of a sample the schedule reads, on average; None if the user gives a number.

    None also for the default schedule on the default tiles: step 1 knows these. Raises UserError for an unknown preset.
    """
    settings = augmentation.options().parse_args(run_with.augment)
    tiles = preprocessing.options().parse_args(run_with.tile)
    if settings.copies is not None:
        return None
    reads = tiles_read(run_with)
    task = task_for(layout, settings)
    held_out = task.split(layout, settings.holdout, settings.seed)
    sizes = [layout.size(number) for number in range(len(layout)) if number not in held_out]
    shape = task.page_shape(layout)[:2]
    tiling = preprocessing.tiling_of(tiles, task, shape)
    preprocessing.check_tiling(task, tiling, tiles.weights or task.default_weights, shape)
    if reads == planning.READS and tiling == preprocessing.task_tiling(task, shape):
        return None
    per_page = len(preprocessing.tile_corners(tiling, shape, task.windowed))
    copies = planning.needed_copies(task, sizes, per_page, reads)
    if copies < task.default_copies:
        enough = planning.describe_copies(copies, len(sizes), layout.noun)
        print(f"== Training reads {reads:,} tiles: {enough} are enough, instead of {task.default_copies} of each",
              flush=True)
    return copies


def tiles_read(run_with: RunOptions) -> int:
    """Return how many tiles the schedule of a run reads; raise UserError for an unknown preset."""
    schedule = Parser(add_help=False)
    schedule.add_argument("--preset", default=run_with.preset)
    for name in ("epochs", "steps", "batch"):
        schedule.add_argument(f"--{name}", type=int)
    train = schedule.parse_known_args(run_with.train)[0]
    if train.preset == "auto" and not (train.epochs or train.steps or train.batch):
        return planning.READS
    from model import PRESETS  # takes seconds: it imports Keras
    if train.preset not in ("auto", *PRESETS):
        raise UserError(f"there is no preset {train.preset}; choose auto, {', '.join(PRESETS)}")
    recipe = PRESETS["cpu" if train.preset == "auto" else train.preset]
    return (train.epochs or recipe.epochs) * (train.steps or recipe.steps) * (train.batch or recipe.batch)


def run_scripts(args: argparse.Namespace) -> None:
    """Run the three scripts; exit with the status of the first that fails."""
    run_with = run_options(args)
    if is_demo(run_with.data) and len(demo_files(run_with.data)) < len(DEMO_FILES):
        make_demo(run_with.data)
    layout = readable(run_with.data)
    what = (f"the demo stack, which is synthetic; put your own into {DATA}. The run's files go to {run_with.work}"
            if is_demo(run_with.data) else f"{layout.what}, {len(layout)} {layout.noun}s with labels")
    print(f"== Data: {run_with.data}, {what}", flush=True)
    with run_folder(run_with.work, whole=True):
        for words in run_with.commands(scheduled_copies(run_with, layout)):
            print(f"\n== python {shlex.join(words)}", flush=True)
            status = call(words)
            if status:
                sys.exit(status)


def call(words: list[str]) -> int:
    """Run a script and return its exit status."""
    return run_python([str(ROOT / words[0]), *words[1:]])


def report(args: argparse.Namespace) -> None:
    """Call report.py on the run in --work, or that in results/, or the demo's, whichever comes first."""
    work = Path(args.work or (WORK if (WORK / "config.json").is_file() else DEMO_WORK)).expanduser()
    sys.exit(call(["report.py", "--work", str(work), *(["--out", args.out] if args.out else [])]))


def images(args: argparse.Namespace) -> None:
    """Draw the pictures of README and docs from a run on the demo stack; run it first if there is none."""
    words = ["--work", args.work or str(DEMO_WORK), *(["--out", args.out] if args.out else [])]
    if not (Path(words[1]).expanduser() / "metrics.json").is_file():
        run_scripts(options().parse_args(["run", "--data", str(DEMO), *words]))
    sys.exit(run_python(["-m", "unet.report.figures", *words]))


def clean(args: argparse.Namespace) -> None:
    """Remove what runs made in --work, or in results/ and results/demo and the demo stack; print what stays."""
    counts = {folder: len(remove_run(folder)) for folder in ([args.work] if args.work else [DEMO_WORK, WORK])}
    if not args.work:
        stacks = demo_files(DEMO)
        counts[DEMO] = len(remove([*stacks, DEMO / DEMO_MARK] if stacks else [], DEMO))
    for folder, count in counts.items():
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        others = f"; other files stay: {', '.join(names[:8] + ['...'] * (len(names) > 8))}" if names else ""
        print(f"{folder}: {count} files removed{others}" if count or names else f"{folder}: nothing to remove")


def options() -> argparse.ArgumentParser:
    """Return the commands and their options; the parsed namespace has the command's function as `call`."""
    parser = Parser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, function, text in (("run", run_scripts, "run the three scripts"),
                                 ("report", report, "write the page about the last run"),
                                 ("images", images, "draw the pictures of README and docs")):
        command = commands.add_parser(name, help=text)  # each takes all of make's variables, and uses what it needs
        command.set_defaults(call=function)
        command.add_argument("--data", default="", help="folder of stacks, or of images with masks (default: data/, "
                                                        "or the demo if you put nothing there)")
        command.add_argument("--work", default="", help="folder for all files of a run (default: results; results/demo "
                                                        "for the demo)")
        command.add_argument("--out", default="", help="file or folder for the prediction (default: train.py's; in the "
                                                       "folder of the run for the demo)")
        command.add_argument("--preset", default="", help="network and schedule (default: auto; fast for the demo)")
        for step, script in (("augment", "augmentation.py"), ("tile", "preprocessing.py"), ("train", "train.py")):
            command.add_argument(f"--{step}", default="", metavar="OPTIONS", help=f"further options of {script}")
    cleaning = commands.add_parser("clean", help="remove only what runs and the demo made")
    cleaning.set_defaults(call=clean)
    cleaning.add_argument("--work", type=Path, help="the run to remove (default: those in results and results/demo, "
                                                    "and the demo stack)")
    return parser


def main() -> None:
    args = options().parse_args()
    args.call(args)


if __name__ == "__main__":
    run(main)
