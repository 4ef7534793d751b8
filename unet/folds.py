"""Cross-validation: every labelled slice is scored once, by a network that was not trained on it.

<work>/fold-1 ... fold-K -> folds.json, each fold's scores, their mean and standard deviation, and a prediction by all

Each fold is a run with its own first and second step, so that no copy of a held-out slice trains its network.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from augmentation import augment
from predict import FinalStep
from preprocessing import Tiling, fresh_geometry, fresh_manifest, preprocess
from unet.engines.engines import open_engine
from unet.engines.ensemble import Ensemble, combine_learnt, read_configs
from unet.engines.predictor import make_predictor
from unet.inputs.layouts import Layout, layout_of
from unet.system.workers import run_python
from unet.tasks import task_of
from unet.tasks.task import Outputs, Task
from unet.training.folder import FOLDS_FILE, folds_of, remove_run, run_folder
from unet.training.plan import Settings
from unet.training.trained import TRAIN_FIRST
from utils import NotLearning, UserError, file_hash, read_json, run, write_json

ROOT = Path(__file__).resolve().parent.parent
AGAIN = "leave out --resume to start again, which removes the existing folds"
LAST_FILES = ("augmented/manifest.json", "patches/geometry.json")  # the last files that steps 1 and 2 of a fold write
Train = Callable[[argparse.Namespace], None]  # step 3 of one fold with these options: train and score, predict nothing


def cross_validate(args: argparse.Namespace, deciding: Sequence[str], train: Train) -> None:
    """Train and score each unfinished fold, write all scores, predict with all networks.

    `args` are those of train.py, `deciding` the names of those that decide what is trained. Raises UserError if earlier
    steps have to run first, if there are too few slices for the folds, or if a stopped cross-validation has other data
    or options; on Ctrl-C raises KeyboardInterrupt, which says how to go on.
    """
    geometry = fresh_geometry(args.work)
    task, layout = task_of(geometry), layout_of(geometry["data"])
    plan = start_or_continue(args, deciding, task, layout)
    args = argparse.Namespace(**{**vars(args), **plan["command"], "out": plan["out"] and Path(plan["out"])})
    outputs, blocks = task.outputs(args.out), plan["blocks"]
    task.check_outputs(outputs, layout.to_predict())  # before the training, not after it
    try:
        for number, block in enumerate(blocks, 1):
            fold = args.work / f"fold-{number}"
            if is_finished(fold):
                print(f"{fold} is trained and scored")
                continue
            print(f"\n== fold {number} of {len(blocks)}, scored on {layout.name_samples(block)} of {len(layout)}",
                  flush=True)
            with run_folder(fold, whole=True):
                call_prepare(args.work, number)
                train(argparse.Namespace(**{**vars(args), "work": fold, "out": fold / task.default_out,
                                            "resume": args.resume and (fold / "checkpoint.npz").is_file()}))
        plan["scores"] = summary([task.summary(read_json(args.work / f"fold-{number}" / "metrics.json", TRAIN_FIRST))
                                  for number in range(1, len(blocks) + 1)])
        write_json(args.work / FOLDS_FILE, plan)
        titles = [f"fold {number}, {layout.name_samples(block)}" for number, block in enumerate(blocks, 1)]
        print(f"\n{len(blocks)} folds; each {layout.noun} is scored by a network that was not trained on it:\n"
              + fold_table(plan["scores"], titles))
        predict(args, plan, task, layout, outputs)
    except NotLearning as error:
        raise NotLearning(f"fold {number} of {len(blocks)}: {error}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; 'python train.py --work {args.work} --folds {len(blocks)} --resume' does "
                                "what is left") from None


def start_or_continue(args: argparse.Namespace, deciding: Sequence[str], task: Task, layout: Layout) -> dict:
    """Return the content of folds.json; without --resume, or if there is none, start one that replaces any other."""
    path, tiles = args.work / FOLDS_FILE, file_hash(args.work / "patches" / "geometry.json")
    command = {name: getattr(args, name) for name in (*deciding, "tensorboard")}
    if args.resume and path.is_file():
        plan = read_json(path, AGAIN, ("blocks", "tiles", "command", "out"))
        differences = [f"--folds {len(plan['blocks'])}"] if len(plan["blocks"]) != args.folds else []
        differences += ["other tiles"] if plan["tiles"] != tiles else []
        if any(command[name] is not None for name in deciding):
            differences += [f"another --{name.replace('_', '-')}" for name in deciding
                            if command[name] != plan["command"].get(name)]
        if differences:
            raise UserError(f"{path} was started with {', '.join(differences)}; continue it with the same --folds and "
                            f"tiles and without options of the training, or {AGAIN}")
        return {**plan, "out": str(args.out) if args.out else plan["out"]}
    if args.resume:
        print(f"note: {args.work} has no cross-validation that was stopped; starting one")
    blocks = blocks_of(task, layout, args.folds, fresh_manifest(args.work)["seed"])
    for fold in folds_of(args.work):  # otherwise surplus folds would be taken for folds of this one
        remove_run(fold)
    plan = {"blocks": blocks, "names": [[layout.names[number] for number in block] for block in blocks],
            "tiles": tiles, "command": command, "out": str(args.out) if args.out else None}
    write_json(path, plan)
    return plan


def blocks_of(task: Task, layout: Layout, count: int, seed: int) -> list[list[int]]:
    """Return the numbers of the held-out samples of each of `count` folds.

    Raises UserError if there are fewer samples than folds, or a fold has nothing to score.
    """
    if count > len(layout):
        raise UserError(f"--folds {count}: {layout.folder} has {len(layout)} labelled {layout.noun}s, and each fold "
                        "needs one to score; choose fewer")
    blocks = task.folds(layout, count, seed)
    for block in blocks:
        task.check_holdout(layout, block, "choose another number of --folds")
    return blocks


def is_finished(fold: Path) -> bool:
    """Tell whether a fold's network is trained and scored."""
    paths = [fold / name for name in ("finished.json", "metrics.json", "model.keras")]
    if not all(path.is_file() for path in paths):
        return False
    marks = read_json(paths[0], "remove it")
    return "scored" in marks and marks.get("model") == file_hash(paths[2])


def call_prepare(work: Path, number: int) -> None:
    """Run steps 1 and 2 of a fold in a process without TensorFlow, as its workers import all that it has imported.

    Exit with the process's status if it fails; the process handles Ctrl-C, too.
    """
    if all((work / f"fold-{number}" / name).is_file() for name in LAST_FILES):
        return
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    status = run_python(["-m", "unet.folds", str(work), str(number)], stdin=subprocess.PIPE,
                        env={**os.environ, "PYTHONPATH": paths})
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if status:
        sys.exit(status)


def prepare(work: Path, number: int) -> None:
    """Run steps 1 and 2 of a fold, unless they are finished, with the settings of the run in `work`."""
    fold, block = work / f"fold-{number}", read_json(work / FOLDS_FILE, AGAIN, ("blocks",))["blocks"][number - 1]
    manifest, geometry = fresh_manifest(work), fresh_geometry(work)
    if not (fold / LAST_FILES[0]).is_file():
        task = task_of(manifest)
        own, train = task.settings(), len(manifest["split"]["train"])
        copies = manifest["copies"] * train / (len(manifest["sources"]) - len(block))  # the same number in all
        augment(Path(manifest["data"]), fold, Settings(
            copies=copies, holdout=tuple(block), seed=manifest["seed"], task=task.meaning, classes=own.get("classes"),
            window=own.get("window_side"), resize=own.get("resize")))
    if not (fold / LAST_FILES[1]).is_file():
        tiling = Tiling(geometry["tile"], geometry["margin"], geometry["valid"])
        preprocess(fold, tiling, geometry["weights"], geometry.get("seed", 0))


def predict(args: argparse.Namespace, plan: dict, task: Task, layout: Layout, outputs: Outputs) -> None:
    """Predict the images without labels with the models of all folds, if that is not finished."""
    models = [args.work / f"fold-{number}" / "model.keras" for number in range(1, len(plan["blocks"]) + 1)]
    configs, inputs = read_configs(models), layout.to_predict()
    purpose = {**outputs.as_json(), "input": layout.hash_to_predict(), "models": [file_hash(model) for model in models]}
    ensemble = Ensemble([make_predictor(open_engine(model, "tensorflow", args.precision or "auto")[0], config)
                         for model, config in zip(models, configs, strict=True)])
    learnt = combine_learnt(configs)
    if plan.get("predicted") != purpose or not all(path.exists() for path in task.files(outputs, inputs.names)):
        FinalStep(args.work, ensemble, {**configs[0], "learnt": learnt}, layout, inputs, outputs).predict()
        layout.check_unchanged()
        write_json(args.work / FOLDS_FILE, {**plan, "predicted": purpose})
    print(outputs.describe(f"{task.output}, {ensemble.describe()}; each {layout.noun} with labels trained some of "
                           "these models, so none can score their mean", task.describe(learnt)))


# ------------------------------------------------------------------------------------------------------ scores


def summary(folds: Sequence[dict]) -> dict:
    """Return the scores of all folds, a `Task.summary` each, with mean and standard deviation (n - 1), for JSON.

    A fold without walls has no scores with walls: they are None, and the mean is that of the other folds.
    """
    result = {}
    for title in dict.fromkeys(title for fold in folds for title in fold):
        rows = [fold.get(title) for fold in folds]
        present = [row for row in rows if row]
        values = {name: [row[name] for row in present] for name in present[0]}
        result[title] = {"folds": rows, "mean": {name: float(np.mean(numbers)) for name, numbers in values.items()},
                         "sd": {name: float(np.std(numbers, ddof=1)) if len(present) > 1 else None
                                for name, numbers in values.items()}}
    return result


def fold_table(scores: dict, titles: Sequence[str]) -> str:
    """Return the table of the result of `summary`; `titles` are those of the folds."""
    lines, width = [], max(24, *(len(title) + 2 for title in titles))
    for title, group in scores.items():
        count = sum(row is not None for row in group["folds"])
        names = list(group["mean"])
        lines += [f"{title}:", " " * width + "".join(f"{name:>14}" for name in names)]
        for head, row in (*zip(titles, group["folds"], strict=True), (f"mean of {count} folds", group["mean"]),
                          ("standard deviation", group["sd"])):
            values = [(row or {}).get(name) for name in names]
            lines.append(f"{head:<{width}}" + "".join(f"{'none' if value is None else f'{value:.4f}':>14}"
                                                      for value in values))
        lines.append("")
    return "\n".join(lines)


def _end_with_starter() -> None:
    """End this process when the one that started it, and with it its end of the pipe, is gone."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    threading.Thread(target=_end_with_starter, daemon=True).start()
    work, number = Path(sys.argv[1]), int(sys.argv[2])
    with run_folder(work / f"fold-{number}"):
        prepare(work, number)


if __name__ == "__main__":
    run(main)
