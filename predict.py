"""The final step: a trained model and any images -> prediction.tif, the network's probability, and its objects.

    python predict.py STACK.tif --model results/model.keras --out prediction.tif
    python predict.py STACK.tif --model results/fold-*/model.keras    several models, their mean
    python predict.py FOLDER    single images, each for itself -> prediction/<name>.tif and <name>-labels.tif
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unet.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import numpy as np
from tqdm import tqdm

from unet.engines.cluster import predict_on_cluster
from unet.engines.engines import ENGINES, Engine, open_engine
from unet.engines.ensemble import Ensemble, learnt_together, models_of, read_configs
from unet.engines.predictor import Predictor, predictor_of
from unet.engines.seams import Seams
from unet.inputs.layouts import Chosen, Layout, layout_of
from unet.inputs.samples import Samples
from unet.inputs.voxel import Voxel
from unet.predicting.images import Extras, predictions
from unet.predicting.kept import Kept
from unet.report.by_task import pictures_of
from unet.report.pictures import save
from unet.scores.doubt import doubt_of, write_doubts
from unet.segment.instances import run_lengths
from unet.tasks import task_of
from unet.tasks.task import Judged, Outputs, Task, separates
from unet.training.device import PRECISIONS
from unet.training.trained import TRAIN_FIRST
from utils import (
    NotLearning,
    Parser,
    UserError,
    at_least,
    atomic_path,
    check_output,
    counted,
    file_hash,
    read_json,
    require_space,
    run,
    write_json,
)

NEXT = "next.csv"  # what to label next, beside the run
SHEETS = (".xlsx", ".xls", ".ods")  # what a spreadsheet would not open if it were CSV inside
OTHER_SIZE = 1.2  # times: pixels that are larger or smaller by more are another size, which is said
SHOWN = 6  # held-out samples in holdout.png


# ---------------------------------------------------------------------------------------------------- the final step


@dataclass(frozen=True)
class FinalStep:
    """What is left to do once a network is trained: look back, judge, predict; each stage once for a model."""

    work: Path
    predictor: Predictor
    config: dict
    layout: Layout
    inputs: Samples | None  # what nobody labelled; None: it is not to be predicted
    outputs: Outputs

    @property
    def task(self) -> Task:
        """What the network was trained for."""
        return self.predictor.task

    def run(self) -> bool:
        """Do what is left, in order; returns whether anything was.

        finished.json marks the stages that are done for model.keras, known by its hash. Raises NotLearning where the
        network says the same everywhere.
        """
        stages = {"learnt": self.learn, "judged": self.judge, "predicted": self.predict}
        path, model = self.work / "finished.json", file_hash(self.work / "model.keras")
        marks = read_json(path, "remove it") if path.is_file() else {}
        if marks.get("model") != model or marks.get("learnt") is None or "learnt" not in self.config:
            marks = {"model": model}  # what was judged and predicted stood on what was learnt
        wanted = self.wanted()
        left = [name for name, (purpose, files) in wanted.items()
                if marks.get(name) != purpose or not all(file.exists() for file in files)]
        for name in left:
            stages[name]()
            self.layout.check_unchanged()
            marks[name] = wanted[name][0]
            write_json(path, marks)
        return bool(left)

    def wanted(self) -> dict[str, tuple[dict, list[Path]]]:
        """Of each stage what it is done for, ready for JSON, and the files that it leaves."""
        def places(outputs: Outputs) -> dict:
            return {name: path and str(path.resolve()) for name, path in asdict(outputs).items()}

        held_out = [self.layout.names[number] for number in self.config["split"]["holdout"]]
        judged = self.task.holdout_outputs(self.work, self.outputs)
        scores = [self.work / "metrics.json", self.work / "holdout.png", *self.task.files(judged, held_out)]
        stages = {"learnt": ({}, []), "judged": (places(judged), scores if held_out else [])}
        if self.inputs is None:
            return stages
        return {**stages, "predicted": ({**places(self.outputs), "input": self.layout.hash_to_predict()},
                                        [self.work / NEXT, *self.task.files(self.outputs, self.inputs.names)])}

    def learn(self) -> None:
        """Look back at samples that trained: whether the network learnt, and what is to be learnt beside it."""
        numbers = self.task.looked_back(self.layout, self.config["split"]["train"], self.config["recipe"]["look_back"])
        outputs, labels = [], []
        for sample in tqdm(Chosen(self.layout, numbers), "looking back", unit=self.layout.noun, disable=None):
            outputs.append(self.predictor(sample.image))
            labels.append(self.task.label(sample.label))
        if not separates(outputs, [self.task.target(label) for label in labels], self.task.classes):
            raise NotLearning("the network says the same everywhere: it did not learn. Train longer (--epochs), with a "
                              "smaller --lr, or look for inverted labels with 'python datasets.py check'")
        learnt = self.task.learn(outputs, labels, self.config["recipe"]["walls"])
        self.config["learnt"] = {**learnt, "on": numbers}
        write_json(self.work / "config.json", self.config)

    def judge(self) -> None:
        """Predict the held-out samples and score them; writes metrics.json, their predictions and holdout.png."""
        numbers, learnt = self.config["split"]["holdout"], self.config["learnt"]
        trained = [self.layout.names[number] for number in self.config["split"]["train"]]
        stale = self.task.remove_stale(self.outputs, trained)
        if stale:
            print(f"note: {self.outputs.out}: the predictions of {counted(stale, self.layout.noun)} now in "
                  "training were removed")
        if not numbers:
            return
        shown: list[Judged] = []
        judged = predictions(self.predictor, self.task, Chosen(self.layout, numbers), learnt,
                             self.task.holdout_outputs(self.work, self.outputs), Extras(title="judging"))
        scores = self.task.score(_kept(judged, shown), numbers, learnt)
        write_json(self.work / "metrics.json", scores)
        save(pictures_of(self.task).holdout(shown, learnt), self.work / "holdout.png", dpi=80)

    def predict(self) -> None:
        """Predict what nobody labelled; next.csv says what of it to label next."""
        learnt = self.config["learnt"]
        doubts = []
        for one in predictions(self.predictor, self.task, self.inputs, learnt, self.outputs,
                               extras=Extras(spread=True)):
            probability = np.asarray(one.probability)
            doubts.append(doubt_of(one.sample.name, probability, self.task.decides(probability, learnt), one.spread))
        write_doubts(self.work / NEXT, doubts)


def _kept(judged: Iterator[Judged], kept: list[Judged], most: int = SHOWN) -> Iterator[Judged]:
    """Yield all and keep the first ones, `most` of them; of each group one before a second one of any."""
    for one in judged:
        kept.append(one)
        if len(kept) > most:
            groups = [other.sample.group for other in kept]
            del kept[max(range(len(kept)), key=lambda number: (groups[:number].count(groups[number]), number))]
        yield one


def finish(work: Path, engine: Engine, config: dict, outputs: Outputs, predicts: bool = True) -> None:
    """Do what is left of a run whose network is trained, and print its scores and where everything is."""
    predictor, layout = predictor_of(engine, config), layout_of(config["data"])
    step = FinalStep(work, predictor, config, layout, layout.to_predict() if predicts else None, outputs)
    if not step.run():
        print("nothing is left to do: the network is trained, judged, and everything is predicted")
    if (work / "metrics.json").is_file():
        print(f"\nheld-out {layout.noun}s, which judged and never trained:\n"
              + step.task.table(read_json(work / "metrics.json", TRAIN_FIRST)))
    pictures = [str(work / name) for name in ("curve.png", "holdout.png") if (work / name).is_file()]
    print(f"pictures: {', '.join(pictures)}")
    if not predicts:
        return
    print(outputs.in_words(f"{predictor.task.output}, {predictor.in_words()}", step.task.in_words(config["learnt"])))
    print(f"all about this run on one page, {work / 'report.html'}: python report.py --work {work} --out {outputs.out}")


# -------------------------------------------------------------------------------------------------- command line


def options() -> argparse.ArgumentParser:
    """The command line of `python predict.py`."""
    parser = Parser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("input", type=Path, nargs="?", metavar="INPUT", help="what to segment: a gray stack "
                        "(TIFF, .npy, Zarr), or a folder or quoted pattern of PNG, JPEG or TIFF images; for a model of "
                        "single images one, a folder with them, with images/ or with <id>/images/, or a stack of them")
    parser.add_argument("--model", type=Path, nargs="+", default=Path("results/model.keras"), metavar="FILE",
                        help="the trained model; of several, or of a quoted pattern, the mean of what they say")
    parser.add_argument("--out", type=Path, help="the network's probability, float32; its name says the format: .tif, "
                        ".ome.tif, .zarr, or without an ending a folder of TIFF files (without it prediction.tif, of "
                        "images the folder prediction)")
    parser.add_argument("--cells", type=Path, metavar="FILE", help="a number for each cell and slice (without it "
                        "cells.tif beside prediction.tif)")
    walls = parser.add_mutually_exclusive_group()
    walls.add_argument("--walls", type=Path, metavar="FILE", help="write the probability with walls drawn, too")
    walls.add_argument("--no-walls", action="store_true", help="take cells from the probability as it is")
    parser.add_argument("--flips", type=int, choices=range(1, 9), help="flips and turns that are averaged (without it "
                                                                       "the run's)")
    parser.add_argument("--zooms", type=at_least(0.1, float), nargs="+", help="magnifications that are averaged "
                                                                              "(without it the run's)")
    parser.add_argument("--match-pixel-size", action="store_true", help="magnify images to the size of pixels that the "
                        "network was trained on, and its prediction back")
    parser.add_argument("--panels", type=Path, metavar="DIR", help="draw a picture of each image into this folder")
    parser.add_argument("--submission", type=Path, metavar="FILE", help="write Kaggle's run-length CSV, too")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what runs the network; auto takes OpenVINO "
                        "on processors where it is installed")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write a CSV file with a row for each object, too")
    parser.add_argument("--link", action="store_true", help="give cells of neighbouring slices that are the same one "
                                                            "number through the stack")
    parser.add_argument("--resume", action="store_true", help="go on where the same command was stopped")
    parser.add_argument("--check-seams", action="store_true", help="say how much the probability jumps where tiles "
                                                                   "meet, against elsewhere")
    parser.add_argument("--dask", metavar="ADDRESS", help="predict a Zarr by chunks on the workers of this Dask "
                        "scheduler; local starts --workers processes here")
    parser.add_argument("--workers", type=at_least(1), default=2, help="processes of --dask local")
    parser.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto", help="arithmetic")
    return parser


def arguments() -> argparse.Namespace:
    """What the command line says, all models as a list; the input may stand behind them, too."""
    parser = options()
    args = parser.parse_args()
    args.model = args.model if isinstance(args.model, list) else [args.model]
    if args.input is None and len(args.model) > 1 and args.model[-1].suffix != ".keras":
        *args.model, args.input = args.model
    if args.input is None:
        parser.error("INPUT is missing: what to segment")
    args.model = models_of(args.model)
    return args


def extras_of(args: argparse.Namespace, samples: Samples, outputs: Outputs) -> Extras:
    """What else the user asked for, and where what is finished is kept; raises UserError where it can't be."""
    if args.link and not (outputs.objects or args.table):
        raise UserError("--link numbers objects, and none are written; name a file for them with --cells")
    if args.table:
        if args.table.suffix.lower() in SHEETS:
            raise UserError(f"--table {args.table}: tables are CSV, which spreadsheets open; end the name with .csv")
        check_output(args.table, 0)
        samples.check_apart([args.table, *filter(None, (outputs.out, outputs.redrawn))])
    about = {f"--{name}": str(value) for name, value in vars(args).items()
             if name not in ("input", "model", "resume", "dask", "workers")}
    about |= {"input": [str(args.input.resolve()), list(samples.names)],
              "model": [file_hash(model) for model in args.model],
              "config.json": [file_hash(model.with_name("config.json")) for model in args.model]}
    return Extras(args.link, args.table, kept=Kept(outputs.out, about, args.resume))


def matching_zooms(args: argparse.Namespace, trained: dict | None, voxel: Voxel | None) -> list[float] | None:
    """The magnifications to predict at; says where pixels are of another size than those that `trained` a model.

    Raises UserError where they are to be matched, and a size is not known.
    """
    trained = Voxel(**trained) if trained else None
    if args.match_pixel_size:
        if args.zooms:
            raise UserError("--match-pixel-size and --zooms both say how images are magnified; leave one of them out")
        if voxel is None or trained is None:
            raise UserError(f"the pixel size of {args.input if voxel is None else 'the images that trained'} is not "
                            "known; set it in Fiji with Image > Properties, or magnify with --zooms")
        return [voxel.times(trained)]
    if voxel and trained and not 1 / OTHER_SIZE < voxel.times(trained) < OTHER_SIZE:
        print(f"note: a pixel of {args.input} is {voxel.in_words()}, but the network was trained on "
              f"{trained.in_words()}; --match-pixel-size brings images to that size, and predictions back")
    return args.zooms


def open_models(args: argparse.Namespace, configs: Sequence[dict], voxel: Voxel | None) -> Predictor | Ensemble:
    """All models that the command line names, as one predictor; says what runs them, and which learnt nothing yet."""
    sizes = {str(config.get("voxel")): config.get("voxel") for config in configs}
    zooms = {size: matching_zooms(args, trained, voxel) for size, trained in sizes.items()}
    members, stopped = [], [config for config in configs if "learnt" not in config]
    for model, config in zip(args.model, configs, strict=True):
        engine, device = open_engine(model, args.engine, args.precision)
        if not members:
            print(device)
        if config in stopped:
            instead = ".5 is" if len(stopped) == len(configs) else "those of the others are"
            print(f"note: the run of {model} was stopped before thresholds and walls were learnt, so {instead} taken; "
                  f"'python train.py --work {model.parent} --resume' does what is left")
        config = {**config, "recipe": configs[0]["recipe"]}  # one model's flips are all models'
        members.append(predictor_of(engine, config, args.flips, zooms[str(config.get("voxel"))]))
    return Ensemble(members) if len(members) > 1 else members[0]


def main() -> None:
    args = arguments()
    configs = read_configs(args.model)
    task, learnt = task_of(configs[0]), learnt_together(configs)
    learnt = task.unlearnt(learnt) if args.no_walls else learnt
    outputs = task.outputs(args.out, args.cells, args.walls)
    if args.walls and not task.redraws(learnt):
        raise UserError(f"--walls {args.walls}: {args.model[0]} draws no walls; leave it out")
    samples = task.inputs(args.input)
    task.check_outputs(outputs, samples)
    if args.panels:
        require_space(args.panels, 10_000_000)
        samples.check_apart([args.panels / f"{name}.png" for name in samples.names])
    if args.submission:
        check_output(args.submission, 0)
        samples.check_apart([args.submission])
    extras = extras_of(args, samples, outputs)
    predictor = open_models(args, configs, samples.voxel)
    seams = Seams(predictor) if args.check_seams else None
    if seams and any(member.zooms != (1.0,) for member in predictor.members):
        raise UserError("--check-seams looks at tiles of the image's own size; leave it out, or add --zooms 1")
    if args.dask:
        count = predict_on_cluster(args, predictor, learnt, outputs, samples, extras)
        print(f"{', '.join(map(str, task.files(outputs, samples.names)))}: {counted(len(samples), 'image')}, "
              f"{counted(count, 'object')}")
        if args.table:
            print(f"{args.table}: a row for each object")
        return
    lines, count = ["ImageId,EncodedPixels"], 0
    for one in predictions(predictor, task, samples, learnt, outputs, extras=extras):
        greatest = int(one.objects.max())
        count = max(count, greatest) if args.link else count + greatest
        if args.submission:  # an image without objects has a line, too, and nothing in it
            lines += ([f"{one.sample.name},{line}" for line in run_lengths(np.asarray(one.objects))]
                      or [f"{one.sample.name},"])
        if seams:
            seams.add(one.probability)
        if args.panels:
            sample = replace(one.sample, image=np.asarray(one.sample.image))
            whole = replace(one, sample=sample, probability=np.asarray(one.probability),
                            redrawn=np.asarray(one.redrawn), objects=np.asarray(one.objects))
            save(pictures_of(task).holdout([whole], learnt), args.panels / f"{one.sample.name}.png", dpi=80)
    if args.submission:
        with atomic_path(args.submission) as temporary:
            temporary.write_text("\n".join(lines) + "\n")
    print(outputs.in_words(f"{task.output} of {counted(len(samples), 'image')}, {predictor.in_words()}",
                           f"{counted(count, 'object')}, {task.in_words(learnt)}"))
    if seams:
        print(seams.in_words())
    for path, what in ((args.panels, "a picture of each image"), (args.submission, "Kaggle's run-length lines"),
                       (args.table, "a row for each object")):
        if path:
            print(f"{path}: {what}")


if __name__ == "__main__":
    run(main)
