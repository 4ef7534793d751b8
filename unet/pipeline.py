"""What `make` decides: which data are meant, where the run goes, how many copies it needs, what `make clean` removes.

    python -m unet.pipeline run     the three scripts, one after the other
    python -m unet.pipeline report  the page about the run that they left
    python -m unet.pipeline images  the pictures of README and docs, from a run on the demo stack
    python -m unet.pipeline clean   what runs and the demo made, and nothing else
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from unet.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import augmentation
import preprocessing
from datasets import examine
from unet.inputs.demo import FILES, MARK, demo_files, make_demo
from unet.inputs.layouts import Layout, Stacks, kind_of, layout_of
from unet.tasks import choose_task
from unet.training import copies as planning
from unet.training.folder import remove, remove_run, run_folder
from unet.workers import run_python
from utils import Parser, UserError, run

ROOT = Path(__file__).resolve().parent.parent
DATA, DEMO, WORK = Path("data"), Path("data/demo"), Path("results")
DEMO_WORK = WORK / "demo"
NOT_DATA = ("README.md", DEMO.name)  # in DATA; all else was put there by the user


@dataclass(frozen=True)
class Plan:
    """A run as it was decided; `augment`, `tile` and `train` are further options of the three scripts."""

    data: Path
    work: Path
    out: Path | None  # None: as train.py names it
    preset: str
    augment: list[str]
    tile: list[str]
    train: list[str]

    def commands(self, copies: float | None) -> list[list[str]]:
        """The three scripts and their options; `copies` is None where it is not for us to say."""
        work = ["--work", str(self.work)]
        out = ["--out", str(self.out)] if self.out else []
        fewer = [] if copies is None else ["--copies", str(copies)]
        return [["augmentation.py", "--data", str(self.data), *work, *fewer, *self.augment],
                ["preprocessing.py", *work, *self.tile],
                ["train.py", *work, *out, "--preset", self.preset, *self.train]]


def plan(args: argparse.Namespace) -> Plan:
    """Decide what is not said: anything in data/ is the user's and meant; only without it the demo is."""
    data = Path(args.data or (DATA if has_users_files(DATA) else DEMO)).expanduser()
    demo = is_demo(data)
    work = Path(args.work or (DEMO_WORK if demo else WORK)).expanduser()
    # the demo never touches another run's prediction
    out = Path(args.out).expanduser() if args.out else work / "prediction.tif" if demo else None
    return Plan(data, work, out, args.preset or ("fast" if demo else "auto"),
                *(shlex.split(words) for words in (args.augment, args.tile, args.train)))


def is_demo(data: Path) -> bool:
    """Whether a folder is the demo's, however it is spelled."""
    return data.resolve() == DEMO.resolve()


def has_users_files(folder: Path) -> bool:
    """Whether anything lies in data/ that is neither the demo nor the project's own."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return any(name not in NOT_DATA and not name.startswith(".") for name in names)


def readable(data: Path) -> Layout:
    """The layout of a folder; where it has none that can be trained on, says all that is wrong and raises UserError."""
    try:
        return layout_of(data)
    except UserError:
        if not data.is_dir() or kind_of(data) is not Stacks:
            raise
        print(examine(data)[0], flush=True)
        raise UserError(f"{data} cannot be used as it is, so nothing was run; fix what is said above, or run the demo "
                        f"with 'make DATA={DEMO}'") from None


def needed_copies(one: Plan, layout: Layout) -> float | None:
    """How many augmented copies the schedule draws, on average; None where the user says how many.

    None, too, for the usual schedule on the usual tiles: step 1 knows that one. Raises UserError for an unknown preset.
    """
    asked = augmentation.options().parse_args(one.augment)
    tiles = preprocessing.options().parse_args(one.tile)
    if asked.copies is not None:
        return None
    reads = tiles_read(one)
    task = choose_task(layout, asked.task, classes=asked.classes, window_side=asked.window, resize=asked.resize)
    held_out = task.split(layout, asked.holdout, asked.seed)
    sizes = [layout.size(number) for number in range(len(layout)) if number not in held_out]
    shape = task.page_shape(layout)[:2]
    tiling = preprocessing.tiling_of(tiles, task, shape)
    preprocessing.check_tiling(task, tiling, tiles.weights or task.default_weights, shape)
    if reads == planning.READS and tiling == preprocessing.task_tiling(task, shape):
        return None
    each = len(preprocessing.tile_corners(tiling, shape, task.windowed))
    copies = planning.needed_copies(task, sizes, each, reads)
    if copies < task.default_copies:
        print(f"== Training reads {reads:,} tiles: {planning.in_words(copies, len(sizes), layout.noun)} are enough, in "
              f"place of {task.default_copies} of each", flush=True)
    return copies


def tiles_read(one: Plan) -> int:
    """How many tiles the schedule of a run reads; raises UserError for an unknown preset."""
    schedule = Parser(add_help=False)
    schedule.add_argument("--preset", default=one.preset)
    for name in ("epochs", "steps", "batch"):
        schedule.add_argument(f"--{name}", type=int)
    train = schedule.parse_known_args(one.train)[0]
    if train.preset == "auto" and not (train.epochs or train.steps or train.batch):
        return planning.READS
    from model import PRESETS  # it takes seconds to come in, and with it all of Keras
    if train.preset not in ("auto", *PRESETS):
        raise UserError(f"there is no preset {train.preset}; choose auto, {', '.join(PRESETS)}")
    recipe = PRESETS["cpu" if train.preset == "auto" else train.preset]
    return (train.epochs or recipe.epochs) * (train.steps or recipe.steps) * (train.batch or recipe.batch)


def run_scripts(args: argparse.Namespace) -> None:
    """Run the three scripts; leaves with the exit status of the first that fails."""
    one = plan(args)
    if is_demo(one.data) and len(demo_files(one.data)) < len(FILES):
        make_demo(one.data)
    layout = readable(one.data)
    what = (f"the demo stack, which is synthetic; put your own into {DATA}. All of this run goes to {one.work}"
            if is_demo(one.data) else f"{layout.what}, {len(layout)} {layout.noun}s with labels")
    print(f"== Data: {one.data}, {what}", flush=True)
    with run_folder(one.work, whole=True):
        for words in one.commands(needed_copies(one, layout)):
            print(f"\n== python {shlex.join(words)}", flush=True)
            status = call(words)
            if status:
                sys.exit(status)


def call(words: list[str]) -> int:
    """Run a script and give its exit status."""
    return run_python([str(ROOT / words[0]), *words[1:]])


def report(args: argparse.Namespace) -> None:
    """Call report.py on the run named, else on that in results/, else on the demo's."""
    work = Path(args.work or (WORK if (WORK / "config.json").is_file() else DEMO_WORK)).expanduser()
    sys.exit(call(["report.py", "--work", str(work), *(["--out", args.out] if args.out else [])]))


def images(args: argparse.Namespace) -> None:
    """Draw the pictures of README and docs, from a run on the demo stack that is made where it isn't there."""
    words = ["--work", args.work or str(DEMO_WORK), *(["--out", args.out] if args.out else [])]
    if not (Path(words[1]).expanduser() / "metrics.json").is_file():
        run_scripts(options().parse_args(["run", "--data", str(DEMO), *words]))
    sys.exit(run_python(["-m", "unet.report.figures", *words]))


def clean(args: argparse.Namespace) -> None:
    """Remove what runs made in a folder, or in results/ and results/demo, and the demo stack; says what stays."""
    counts = {folder: len(remove_run(folder)) for folder in ([args.work] if args.work else [DEMO_WORK, WORK])}
    if not args.work:
        ours = demo_files(DEMO)
        counts[DEMO] = len(remove([*ours, DEMO / MARK] if ours else [], DEMO))
    for folder, count in counts.items():
        left = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        stays = f"; not ours and left: {', '.join(left[:8] + ['...'] * (len(left) > 8))}" if left else ""
        print(f"{folder}: {count} files removed{stays}" if count or left else f"{folder}: nothing to remove")


def options() -> argparse.ArgumentParser:
    """The commands and their options; the namespace that it gives has the command to `call`."""
    parser = Parser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, function, text in (("run", run_scripts, "run the three scripts"),
                                 ("report", report, "write the page about the last run"),
                                 ("images", images, "draw the pictures of README and docs")):
        command = commands.add_parser(name, help=text)  # each takes make's variables, and uses those that it needs
        command.set_defaults(call=function)
        command.add_argument("--data", default="", help="folder of stacks or of images with masks (without it what "
                                                        "lies in data/, else the demo)")
        command.add_argument("--work", default="", help="folder for all that a run makes (without it results; of the "
                                                        "demo results/demo)")
        command.add_argument("--out", default="", help="the prediction (without it as train.py names it; of the demo "
                                                       "beside its run)")
        command.add_argument("--preset", default="", help="network and schedule (without it auto; of the demo fast)")
        for step, script in (("augment", "augmentation.py"), ("tile", "preprocessing.py"), ("train", "train.py")):
            command.add_argument(f"--{step}", default="", metavar="OPTIONS", help=f"further options of {script}")
    gone = commands.add_parser("clean", help="remove what runs and the demo made, and nothing else")
    gone.set_defaults(call=clean)
    gone.add_argument("--work", type=Path, help="the run to remove (without it those in results and results/demo, and "
                                                "the demo stack)")
    return parser


def main() -> None:
    args = options().parse_args()
    args.call(args)


if __name__ == "__main__":
    run(main)
