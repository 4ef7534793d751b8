"""The final step: predict any images with a trained model -> prediction.tif, probabilities, and numbered objects.

    python predict.py STACK.tif --model results/model.keras --out prediction.tif
    python predict.py STACK.tif --model results/fold-*/model.keras    the mean of several models
    python predict.py FOLDER    single images -> prediction/<name>.tif and <name>-labels.tif
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unet.system.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import numpy as np
from tqdm import tqdm

from unet.engines.cluster import predict_on_cluster
from unet.engines.engines import ENGINES, Engine, open_engine
from unet.engines.ensemble import Ensemble, combine_learnt, find_models, read_configs
from unet.engines.predictor import Predictor, make_predictor
from unet.engines.seams import Seams
from unet.inputs.layouts import Layout, Subset, layout_of
from unet.inputs.samples import Samples
from unet.inputs.voxel import Voxel
from unet.predicting.extras import KAGGLE_START, Extras, check_further, extras_of
from unet.predicting.images import predictions
from unet.report.by_task import pictures_of
from unet.report.pictures import save
from unet.scores.doubt import doubt_of, write_doubts
from unet.segment.instances import run_lengths
from unet.tasks import task_of
from unet.tasks.task import Outputs, Prediction, Task, separates
from unet.training.device import PRECISIONS
from unet.training.trained import TRAIN_FIRST
from utils import (
    NotLearning,
    Parser,
    UserError,
    at_least,
    atomic_path,
    count_of,
    file_hash,
    read_json,
    run,
    write_json,
)

NEXT_FILE = "next.csv"  # which images to label next, in the folder of the run
SIZE_RATIO = 1.2  # a pixel size that differs by more than this ratio from that of the training images is noted
EXAMPLES = 6  # held-out samples in holdout.png


# ---------------------------------------------------------------------------------------------------- the final step


@dataclass(frozen=True)
class FinalStep:
    """The stages after training: learn thresholds and walls, score, predict; each is done once for a model."""

    work: Path
    predictor: Predictor
    config: dict
    layout: Layout
    inputs: Samples | None  # images without labels to predict; None: predict nothing
    outputs: Outputs

    @property
    def task(self) -> Task:
        """The task that the network was trained for."""
        return self.predictor.task

    def run(self) -> bool:
        """Run the stages that are not finished yet, in order; return whether there were any.

        finished.json lists the finished stages, with the hash of their model.keras. Raises NotLearning if the network
        gives the same output everywhere.
        """
        stages = {"learnt": self.learn, "scored": self.score, "predicted": self.predict}
        path, model = self.work / "finished.json", file_hash(self.work / "model.keras")
        marks = read_json(path, "remove it") if path.is_file() else {}
        if marks.get("model") != model or marks.get("learnt") is None or "learnt" not in self.config:
            marks = {"model": model}  # scores and predictions depend on what was learnt
        requirements = self.requirements()
        to_do = [name for name, (purpose, files) in requirements.items()
                 if marks.get(name) != purpose or not all(file.exists() for file in files)]
        for name in to_do:
            with self.layout.require_unchanged():  # also if a stage fails: other images may be the reason
                stages[name]()
            marks[name] = requirements[name][0]
            write_json(path, marks)
        return bool(to_do)

    def requirements(self) -> dict[str, tuple[dict, list[Path]]]:
        """Return, for each stage, its outputs and inputs, ready for JSON, and the files that it writes."""
        held_out = [self.layout.names[number] for number in self.config["split"]["holdout"]]
        holdout_outputs = self.task.holdout_outputs(self.work, self.outputs)
        scores = [self.work / "metrics.json", self.work / "holdout.png", *self.task.files(holdout_outputs, held_out)]
        stages = {"learnt": ({}, []), "scored": (holdout_outputs.as_json(), scores if held_out else [])}
        if self.inputs is None:
            return stages
        return {**stages, "predicted": ({**self.outputs.as_json(), "input": self.layout.hash_to_predict()},
                                        [self.work / NEXT_FILE, *self.task.files(self.outputs, self.inputs.names)])}

    def learn(self) -> None:
        """Predict training samples to check that the network learnt, and to learn thresholds and walls."""
        train, count = self.config["split"]["train"], self.config["recipe"]["look_back"]
        numbers = self.task.lookback_samples(self.layout, train, count)
        outputs, labels = [], []
        for sample in tqdm(Subset(self.layout, numbers), "looking back", unit=self.layout.noun, disable=None):
            outputs.append(self.predictor(sample.image))
            labels.append(self.task.label(sample.label))
        if not separates(outputs, [self.task.target(label) for label in labels], self.task.classes):
            raise NotLearning("the network gives the same output everywhere: it did not learn. Train longer (--epochs) "
                              "or with a smaller --lr, or look for inverted labels with 'python datasets.py check'")
        learnt = self.task.learn(outputs, labels, self.config["recipe"]["walls"])
        self.config["learnt"] = {**learnt, "on": numbers}
        write_json(self.work / "config.json", self.config)

    def score(self) -> None:
        """Predict the held-out samples and score them; write metrics.json, their predictions and holdout.png."""
        numbers, learnt = self.config["split"]["holdout"], self.config["learnt"]
        train = [self.layout.names[number] for number in self.config["split"]["train"]]
        if stale := self.task.remove_stale(self.outputs, train):
            print(f"note: {self.outputs.out}: the predictions of {count_of(stale, self.layout.noun)} now in "
                  "training were removed")
        if not numbers:
            return
        examples: list[Prediction] = []
        results = predictions(self.predictor, self.task, Subset(self.layout, numbers), learnt,
                              self.task.holdout_outputs(self.work, self.outputs), Extras(title="scoring"))
        scores = self.task.score(_collect_examples(results, examples), numbers, learnt)
        write_json(self.work / "metrics.json", scores)
        save(pictures_of(self.task).holdout(examples, learnt), self.work / "holdout.png", dpi=80)

    def predict(self) -> None:
        """Predict the images without labels; write into next.csv which of them to label next."""
        learnt, doubts = self.config["learnt"], []
        for result in predictions(self.predictor, self.task, self.inputs, learnt, self.outputs,
                                  extras=Extras(spread=True)):
            probability = np.asarray(result.probability)
            doubts.append(doubt_of(result.sample.name, probability, self.task.decisive_pixels(probability, learnt),
                                   result.spread))
        write_doubts(self.work / NEXT_FILE, doubts)


def _collect_examples(results: Iterator[Prediction], examples: list[Prediction], most: int = EXAMPLES
                      ) -> Iterator[Prediction]:
    """Yield all results and add the first `most` to `examples`, one of each group before a second one of any."""
    for result in results:
        examples.append(result)
        if len(examples) > most:
            groups = [example.sample.group for example in examples]
            del examples[max(range(len(groups)), key=lambda number: (groups[:number].count(groups[number]), number))]
        yield result


def finish(work: Path, engine: Engine, config: dict, outputs: Outputs, predicts: bool = True) -> None:
    """Finish a run whose network is trained, and print its scores and where everything is."""
    predictor, layout = make_predictor(engine, config), layout_of(config["data"])
    step = FinalStep(work, predictor, config, layout, layout.to_predict() if predicts else None, outputs)
    if not step.run():
        print("nothing is left to do: the network is trained and scored, and everything is predicted")
    if (work / "metrics.json").is_file():
        print(f"\nscores on held-out {layout.noun}s, on which the network was not trained:\n"
              + step.task.table(read_json(work / "metrics.json", TRAIN_FIRST)))
    pictures = [str(work / name) for name in ("curve.png", "holdout.png") if (work / name).is_file()]
    print(f"pictures: {', '.join(pictures)}")
    if not predicts:
        return
    print(outputs.describe(f"{predictor.task.output}, {predictor.describe()}", step.task.describe(config["learnt"])))
    print(f"for a report on this run, {work / 'report.html'}: python report.py --work {work} --out {outputs.out}")


# -------------------------------------------------------------------------------------------------- command line


def options() -> argparse.ArgumentParser:
    """Return the command line of `python predict.py`."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("input", type=Path, nargs="?", metavar="INPUT", help="images to segment: a grey stack (TIFF, "
                        ".npy, Zarr), or a folder or quoted pattern of PNG, JPEG or TIFF images. For a model of single "
                        "images: one image, a folder of images, a folder with images/ or <id>/images/, or a stack")
    parser.add_argument("--model", type=Path, nargs="+", default=Path("results/model.keras"), metavar="FILE",
                        help="the trained model; several, or a quoted pattern, predict with their mean")
    parser.add_argument("--out", type=Path, help="file for the network's probability, float32; its ending decides the "
                        "format: .tif, .ome.tif, .zarr, or without one a folder of TIFF files (default: "
                        "prediction.tif; the folder prediction for single images)")
    parser.add_argument("--cells", type=Path, metavar="FILE", help="file for the cells of each slice, numbered "
                        "(default: cells.tif beside prediction.tif)")
    walls = parser.add_mutually_exclusive_group()
    walls.add_argument("--walls", type=Path, metavar="FILE", help="also write the probability with walls drawn")
    walls.add_argument("--no-walls", action="store_true", help="segment the probability without walls drawn")
    parser.add_argument("--flips", type=int, choices=range(1, 9), help="number of flips and turns of the image whose "
                                                                       "predictions are averaged (default: the run's)")
    parser.add_argument("--zooms", type=at_least(0.1, float), nargs="+", help="magnifications of the image whose "
                        "predictions are averaged (default: the run's)")
    parser.add_argument("--match-pixel-size", action="store_true", help="magnify images to the pixel size that the "
                        "network was trained on, and its prediction back")
    parser.add_argument("--panels", type=Path, metavar="DIR", help="draw a picture of each image into this folder")
    parser.add_argument("--submission", type=Path, metavar="FILE", help="also write Kaggle's run-length CSV")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="software that runs the network; auto uses "
                                                                          "OpenVINO on CPUs if it is installed")
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write a CSV file with a row for each object")
    parser.add_argument("--link", action="store_true", help="give the same cell the same number in all slices")
    parser.add_argument("--resume", action="store_true", help="continue this command after it was stopped")
    parser.add_argument("--check-seams", action="store_true", help="report how much the probability jumps where tiles "
                                                                   "meet, compared with elsewhere")
    parser.add_argument("--dask", metavar="ADDRESS", help="predict a Zarr by chunks on the workers of this Dask "
                        "scheduler; local starts --workers processes on this machine")
    parser.add_argument("--workers", type=at_least(1), default=2, help="processes of --dask local")
    parser.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="floating-point format")
    return parser


def arguments() -> argparse.Namespace:
    """Parse the command line; `model` is a list, and the input may also follow the models."""
    parser = options()
    args = parser.parse_args()
    args.model = args.model if isinstance(args.model, list) else [args.model]
    if args.input is None and len(args.model) > 1 and args.model[-1].suffix != ".keras":
        *args.model, args.input = args.model
    if args.input is None:
        parser.error("INPUT is missing: name the images to segment")
    args.model = find_models(args.model)
    return args


def matching_zooms(args: argparse.Namespace, model_voxel: dict | None, voxel: Voxel | None) -> list[float] | None:
    """Return the magnifications to predict at, None for the run's; print a note if pixel sizes differ.

    `model_voxel` is config.json's size of the pixels that trained the model, `voxel` that of the input's. Raises
    UserError if they are to be matched and one of them is not known.
    """
    model_voxel = Voxel(**model_voxel) if model_voxel else None
    if args.match_pixel_size:
        if args.zooms:
            raise UserError("--match-pixel-size and --zooms both say how images are magnified; leave one of them out")
        if voxel is None or model_voxel is None:
            raise UserError(f"the pixel size of {args.input if voxel is None else 'the training images'} is not "
                            "known; set it in Fiji with Image > Properties, or magnify with --zooms")
        return [voxel.times(model_voxel)]
    if voxel and model_voxel and not 1 / SIZE_RATIO < voxel.times(model_voxel) < SIZE_RATIO:
        print(f"note: a pixel of {args.input} is {voxel.describe()}, but the network was trained on "
              f"{model_voxel.describe()}; --match-pixel-size brings images to that size, and predictions back")
    return args.zooms


def open_models(args: argparse.Namespace, configs: Sequence[dict], voxel: Voxel | None) -> Predictor | Ensemble:
    """Open all models of the command line as one predictor; print the device, and notes on runs that were stopped."""
    voxels = {str(config.get("voxel")): config.get("voxel") for config in configs}
    zooms = {key: matching_zooms(args, model_voxel, voxel) for key, model_voxel in voxels.items()}
    members, incomplete = [], [config for config in configs if "learnt" not in config]
    for model, config in zip(args.model, configs, strict=True):
        engine, device = open_engine(model, args.engine, args.precision)
        if not members:
            print(device)
        if config in incomplete:
            instead = ".5 is" if len(incomplete) == len(configs) else "those of the others are"
            print(f"note: the run of {model} was stopped before thresholds and walls were learnt, so {instead} taken; "
                  f"'python train.py --work {model.parent} --resume' does what is left")
        config = {**config, "recipe": configs[0]["recipe"]}  # the first model's flips are used for all
        members.append(make_predictor(engine, config, args.flips, zooms[str(config.get("voxel"))]))
    return Ensemble(members) if len(members) > 1 else members[0]


def main() -> None:
    args = arguments()
    configs = read_configs(args.model)
    task, learnt = task_of(configs[0]), combine_learnt(configs)
    learnt = task.without_walls(learnt) if args.no_walls else learnt
    outputs = task.outputs(args.out, args.cells, args.walls)
    if args.walls and not task.redraws(learnt):
        raise UserError(f"--walls {args.walls}: {args.model[0]} draws no walls; leave it out")
    samples = task.inputs(args.input)
    task.check_outputs(outputs, samples)
    check_further(args, samples, task.files(outputs, samples.names))
    extras = extras_of(args, samples, outputs)
    predictor = open_models(args, configs, samples.voxel)
    seams = Seams(predictor) if args.check_seams else None
    if seams and any(member.zooms != (1.0,) for member in predictor.members):
        raise UserError("--check-seams looks at tiles of the image's own size; leave it out, or predict with --zooms 1")
    if args.dask:
        count = predict_on_cluster(args, predictor, learnt, outputs, samples, extras)
        print(f"{', '.join(map(str, task.files(outputs, samples.names)))}: {count_of(len(samples), 'image')}, "
              f"{count_of(count, 'object')}")
        if args.table:
            print(f"{args.table}: a row for each object")
        return
    lines, count = [KAGGLE_START], 0
    for result in predictions(predictor, task, samples, learnt, outputs, extras=extras):
        sample, greatest = result.sample, int(result.objects.max())
        count = max(count, greatest) if args.link else count + greatest
        if args.submission:  # an image without objects gets a line, too, without any pixels
            lines += ([f"{sample.name},{line}" for line in run_lengths(np.asarray(result.objects))]
                      or [f"{sample.name},"])
        if seams:
            seams.add(result.probability)
        if args.panels:
            arrays = {name: np.asarray(getattr(result, name)) for name in ("probability", "redrawn", "objects")}
            whole = replace(result, sample=replace(sample, image=np.asarray(sample.image)), **arrays)
            save(pictures_of(task).holdout([whole], learnt), args.panels / f"{sample.name}.png", dpi=80)
    if args.submission:
        with atomic_path(args.submission) as temporary:
            temporary.write_text("\n".join(lines) + "\n")
    print(outputs.describe(f"{task.output} of {count_of(len(samples), 'image')}, {predictor.describe()}",
                           f"{count_of(count, 'object')}, {task.describe(learnt)}"))
    if seams:
        print(seams.describe())
    for path, content in ((args.panels, "a picture of each image"), (args.submission, "Kaggle's run-length lines"),
                          (args.table, "a row for each object")):
        if path:
            print(f"{path}: {content}")


if __name__ == "__main__":
    run(main)
