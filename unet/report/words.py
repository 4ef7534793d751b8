"""A run in words, whatever its task: settings, scores, the paragraph for a paper's methods; Markdown."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from unet.citations import cited, reference, works
from unet.network import OFFSETS
from unet.tasks.task import Task
from utils import counted

if TYPE_CHECKING:
    from unet.report.run import Run

OPTIMIZERS = {"adam": "Adam", "sgd": "stochastic gradient descent with momentum 0.99",
              "muon": "Muon ({Muon}) for the kernels of hidden convolutions and Adam for all other weights"}
NO_SCORES = "Nothing was held out of this run, or it was stopped before it was judged: there are no scores."


# ------------------------------------------------------------------------------------------------ small words


def table(rows: list[tuple]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def listed(words: list[str]) -> str:
    """Words as 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def _sentences(phrases: Iterable[str]) -> list[str]:
    return [f"{phrase[0].upper()}{phrase[1:]}." for phrase in phrases]


def _range(value: object) -> str:
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, list | tuple) else f"{value:g}"


def optimizer(recipe: dict) -> str:
    """The optimizer, with whom to cite for it."""
    return OPTIMIZERS[recipe["optimizer"]].format(Muon=cited("Muon"))


def network(run: Run) -> str:
    """The network's shape: filters, levels, resolution, dropout, parameters."""
    shape = run.config["network"]
    filters, depth, encoder = shape["filters"], shape["depth"], shape["encoder"]
    half = ", at half the image's resolution with a light block at full resolution" if shape["half"] else ""
    dropout = [f"{rate:g}" for rate in shape["dropout"]]
    drops = f", dropout of {', '.join(dropout)} from the top level to the bottom" if any(shape["dropout"]) else ""
    begins = {"none": "random weights", "imagenet": "weights learnt on ImageNet"}[run.recipe["pretrained"]]
    path = f" with {encoder} ({begins}) as its contracting path," if encoder else ""
    return (f"a U-Net{path} with {filters} to {filters * 2**(depth - bool(encoder))} filters and {depth} "
            f"{'halvings' if encoder else 'poolings'}{half}{drops}, {run.config['parameters']:,} parameters")


def averaging(recipe: dict) -> str:
    """Which weights predict."""
    if recipe["patience"]:
        return ("those of the least loss on a validation block, the last fifth of what was to train on; training "
                f"stopped when this loss had not fallen for {recipe['patience']} epochs")
    count = max(1, round(recipe["epochs"] * recipe["average"]))
    return (f"the mean of those after each of the last {count} of {recipe['epochs']} epochs ({cited('averaging')})"
            if count > 1 else "those after the last step")


def beside(recipe: dict) -> str:
    """What the network learnt beside, '' for nothing."""
    weight = recipe.get("affinities")  # runs of an earlier version have none
    return (f"from a further output, whose loss counted {weight:g} times, the network learnt whether two pixels "
            f"{OFFSETS[0][1]} to {OFFSETS[-1][0]} apart along rows, columns or diagonals share a cell "
            f"({cited('affinities')})") if weight else ""


def variation(recipe: dict, channels: int) -> str:
    """What was drawn anew for each tile while training, as `unet.training.feed` draws it."""
    strength = recipe["intensity"]
    if not strength:
        return "turned and mirrored at random"
    low, high = math.exp(-0.35 * strength), math.exp(0.35 * strength)
    gain = f", each colour by {math.exp(-0.22 * strength):.2f} to {math.exp(0.22 * strength):.2f}" \
        if channels > 1 else ""
    return (f"turned and mirrored at random, and varied in gamma (exponents of {low:.2f} to {high:.2f}), contrast (by "
            f"{low:.2f} to {high:.2f}){gain}, brightness (up to {20 * strength:g} of 255 grey levels) and noise (a "
            f"standard deviation of up to {12 * strength:.2g})")


# ------------------------------------------------------------------------------------------------ a run


class Words(ABC):
    """What is to be said of a task's runs."""

    aim: ClassVar[str]  # begins the methods: what was done
    loss: ClassVar[str]  # unweighted
    borders: ClassVar[str] = "borders"  # what the weights of --weights border are for
    normalised: ClassVar[str]  # how images were normalised, a part of a sentence

    def __init__(self, task: Task):
        self.task = task

    @abstractmethod
    def data(self, run: Run) -> str:
        """What the run was trained on, with what has to be said or cited."""

    @abstractmethod
    def counted(self, run: Run, numbers: list[int]) -> str:
        """Samples of a run by their numbers, in words."""

    @abstractmethod
    def results(self, run: Run) -> str:
        """How good the run is, a sentence or two; `run.scores` are there."""

    @abstractmethod
    def after(self, run: Run) -> list[str]:
        """What was done with the probability, a sentence each."""

    def data_hash(self, run: Run) -> str:
        """SHA-256 of the hashes of all images and labels, wherever they lay."""
        return hashlib.sha256("\n".join(sorted(run.manifest["inputs"].values())).encode()).hexdigest()

    def losses(self, run: Run) -> str:
        """The loss with its weights."""
        return self.loss + {"none": "", "balance": " with balanced classes", "border": " with balanced classes, "
                            f"weighted for narrow {self.borders} ({cited('U-Net')})"}[run.geometry["weights"]]

    def schedule(self, run: Run) -> str:
        """Steps, optimizer and learning rate, as was trained."""
        recipe = run.recipe
        warmup = f"linear warm-up over {recipe['warmup']:.0%} of the schedule, then " if recipe["warmup"] else ""
        return (f"{int(run.history[-1]['step'])} steps of {recipe['batch']} tiles with {optimizer(recipe)} (learning "
                f"rate at most {recipe['lr']:g}, {warmup}cosine decay to zero, gradients of norm 1 at most)")

    def predicted(self, run: Run) -> str:
        """How the network predicted."""
        zooms = [f"{zoom:g}" for zoom in run.recipe.get("zooms", [1.0])]
        flips = run.recipe["flips"]
        return ("whole, large ones in overlapping tiles"
                + (f", at {listed(zooms)} times the size" if zooms != ["1"] else "")
                + (f", as the mean over {flips} of the square's eight symmetries" if flips > 1 else ""))

    def settings(self, run: Run) -> str:
        """All that the run was made with: data, split, options, seeds, machine, versions; a Markdown table."""
        manifest, geometry, recipe, config = run.manifest, run.geometry, run.recipe, run.config
        size, noun = manifest["shape"][1:3], run.layout.noun
        rows = {
            "data": self.data(run),
            "task": f"{self.task.name}: the network puts out the {self.task.output}",
            f"{noun}s that trained": self.counted(run, run.train),
            f"{noun}s that judged, and never trained": self.counted(run, run.holdout),
            f"augmented copies of each {noun}": f"{self.copies(manifest)}, seed {manifest['seed']}",
            "drawn for each copy": "; ".join(f"{name.replace('_', ' ')} {_range(value)}"
                                             for name, value in manifest["options"].items()),
            "tiles": f"{geometry['count']} to train on, {geometry['tile']} pixels, of pages of {size[0]} x {size[1]}",
            "drawn for each tile": variation(recipe, run.config["channels"]),
            "loss": "; ".join(filter(None, (f"{self.losses(run)} (--weights {geometry['weights']})",
                                            beside(run.recipe)))),
            "network": f"{network(run)} (preset {config['preset'] or 'of its own'})",
            "schedule": f"{counted(recipe['epochs'], 'epoch')} of {counted(recipe['steps'], 'step')}; "
                        f"{self.schedule(run)}",
            "weights that predict": averaging(recipe),
            "seed of the training": recipe["seed"],
            "prediction": "; ".join([self.predicted(run), *self.after(run)]),
            "machine": f"{config['device'] or 'unknown'} ({recipe['precision']})",
            "time to train": f"{config['seconds']:.0f} s",
            "versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items())}
        return table([("setting", "value"), *rows.items()])

    def scores(self, run: Run) -> str:
        """The hold-out's scores, of all and one by one, as the console showed them; Markdown."""
        return NO_SCORES if run.scores is None else f"```text\n{self.task.table(run.scores)}\n```"

    def copies(self, manifest: dict, unit: str = "") -> str:
        """How many copies each sample gave."""
        copies = manifest["copies"]
        return f"{copies:.3g}{unit}{' on average' * (self.task.windowed or copies != int(copies))}"

    def augmentation(self, run: Run) -> str:
        """What step 1 drew, as a list."""
        options = run.manifest["options"]
        names = {"turn_probability": "rotation and magnification", "elastic_probability": "elastic deformation",
                 "crop_probability": "cropping with symmetric padding", "brightness": "brightness",
                 "noise_probability": "noise"}
        return listed(["flips", *(name for key, name in names.items() if options[key])])

    def paragraph(self, run: Run) -> str:
        """The methods of a paper: what was done to get the prediction, how good it is, and whom to cite; Markdown."""
        manifest, noun, versions = run.manifest, run.layout.noun, run.config["versions"]
        judged = f"{self.counted(run, run.holdout)} were held out beforehand and never trained" if run.holdout else \
            f"no {noun} was held out"
        copies = (f"Each of the {len(run.train)} {noun}s that train was augmented {self.copies(manifest, ' times')} by "
                  f"{self.augmentation(run)}. " if manifest["copies"] else "")
        sentences = [
            f"{self.aim} with {network(run)} ({cited('U-Net')}), trained on {self.data(run)}.",
            f"Of these, {judged}.",
            f"{copies}{noun.capitalize()}s were {self.normalised}, and cut into tiles of {run.geometry['tile']} "
            "pixels.",
            f"The network was trained on {self.losses(run)} for {self.schedule(run)}, seed {run.recipe['seed']}.",
            f"While training, tiles were {variation(run.recipe, run.config['channels'])}.",
            *_sentences(filter(None, [beside(run.recipe)])),
            f"The weights that predict are {averaging(run.recipe)}.",
            f"{noun.capitalize()}s were predicted {self.predicted(run)}.",
            *_sentences(self.after(run)),
            f"The software was keras-unet, with Keras {versions['keras']} on TensorFlow {versions['tensorflow']}, "
            f"Python {versions['python']}; the machine: {run.config['device'] or 'unknown'}.",
            *([self.results(run)] if run.scores else [])]
        text = " ".join(sentences)
        return text + "\n\n" + "\n".join(f"- {reference(name)}" for name in works() if cited(name) in text)
