"""Compare five slices that results/next.csv ranks first with five random ones: python tests/bench_next.py --data DATA

For each seed, a network trains on ISBI slices 0-4 and predicts 5-24 as if nobody had labelled them. Then one network
trains on slices 0-4 and the five that next.csv ranks first, and one on slices 0-4 and five random ones. All are judged
on slices 25-29, which play no part in any choice. Three seeds are nine trainings: hours on two cores with the preset
cpu, about one hour with fast.
"""

import argparse
import csv
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from unet.inputs.stacks import LABELS, TEST, VOLUME, write_stack
from utils import UserError, read_json, run

ROOT = Path(__file__).resolve().parent.parent
FIRST, POOL, HOLDOUT, ADDITIONAL = range(5), range(5, 25), range(25, 30), 5


def train(folder: Path, stacks: tuple[np.ndarray, np.ndarray], labelled: list[int], seed: int, options: list[str]
          ) -> dict:
    """Train in `folder` on `labelled` slices of (images, labels), predict POOL; return the metrics.json of HOLDOUT.

    `options` are those of train.py.
    """
    images, labels = stacks
    slices = [*labelled, *HOLDOUT]
    for name, stack in ((VOLUME, images[slices]), (LABELS, labels[slices]), (TEST, images[list(POOL)])):
        (folder / "data").mkdir(parents=True, exist_ok=True)
        write_stack(folder / "data" / name, stack)
    common = ["--work", str(folder / "run"), "--seed", str(seed)]
    holdout = f"{len(labelled)}-{len(slices) - 1}"
    for script, *arguments in (["augmentation.py", "--data", str(folder / "data"), "--holdout", holdout, *common],
                               ["preprocessing.py", *common],
                               ["train.py", *options, "--out", str(folder / "prediction.tif"), *common]):
        subprocess.run([sys.executable, str(ROOT / script), *arguments], check=True, stdout=subprocess.DEVNULL)
    return read_json(folder / "run" / "metrics.json", "train.py writes it")


def ranked_first(path: Path) -> list[int]:
    """Return the numbers, in the whole stack, of the slices that next.csv ranks first."""
    with open(path, newline="", encoding="utf-8") as file:
        names = list(dict.fromkeys(row["name"] for row in csv.DictReader(file)))
    return [POOL[int(name.removeprefix("slice "))] for name in names[:ADDITIONAL]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the ISBI stacks (data)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (3)")
    parser.add_argument("--preset", default="fast", help="network and schedule of all trainings (fast)")
    parser.add_argument("--train", default="", metavar="OPTIONS", help="further options of train.py")
    args = parser.parse_args()
    if not (args.data / VOLUME).is_file():
        raise UserError(f"{args.data / VOLUME} not found; 'python datasets.py isbi' downloads the stacks")
    options = ["--preset", args.preset, *shlex.split(args.train)]
    stacks = tuple(tifffile.imread(args.data / name) for name in (VOLUME, LABELS))
    rows: dict[str, list[float]] = {"five slices": [], "and the five least sure": [], "and five at random": []}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(args.seeds):
            folder = Path(temporary) / str(seed)
            results = [train(folder / "first", stacks, [*FIRST], seed, options)]
            choices = {"chosen": ranked_first(folder / "first" / "run" / "next.csv"),
                       "random": sorted(np.random.default_rng(seed).choice(POOL, ADDITIONAL, replace=False).tolist())}
            for name, additional in choices.items():
                results.append(train(folder / name, stacks, [*FIRST, *additional], seed, options))
                print(f"seed {seed}, {name}: {additional}", flush=True)
            for values, scores in zip(rows.values(), results, strict=True):
                values.append((scores["walls"] or scores["probability"])["chosen"]["V_rand"])
    for name, values in rows.items():
        print(f"{name:<26}V_rand {np.mean(values):.4f}, by seed {', '.join(f'{value:.4f}' for value in values)}")


if __name__ == "__main__":
    run(main)
