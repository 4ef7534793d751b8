"""Texts about a run, in Markdown: its settings, its scores, a methods paragraph for a paper."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from unet.citations import cite, reference, works
from unet.network import OFFSETS
from unet.tasks.task import Task
from utils import count_of

if TYPE_CHECKING:
    from unet.report.run import Run

OPTIMIZERS = {"adam": "Adam", "sgd": "stochastic gradient descent with momentum 0.99",
              "muon": "Muon ({Muon}) for the kernels of hidden convolutions and Adam for all other weights"}
NO_SCORES = "Nothing was held out in this run, or it was stopped before it was scored: there are no scores."


# ------------------------------------------------------------------------------------------------ parts of texts


def markdown_table(rows: list[tuple]) -> str:
    """Return a Markdown table whose head is the first row."""
    head, *body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def join_words(words: list[str]) -> str:
    """Return words as 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _sentences(phrases: list[str]) -> list[str]:
    """Return phrases, but not empty ones, with a capital letter and a full stop."""
    return [f"{phrase[0].upper()}{phrase[1:]}." for phrase in phrases if phrase]


def _range(value: object) -> str:
    """Return a number, or the two ends of a range, as text."""
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, list | tuple) else f"{value:g}"


def optimizer(recipe: dict) -> str:
    """Return the optimizer, with its citation."""
    return OPTIMIZERS[recipe["optimizer"]].format(Muon=cite("Muon"))


def network(run: Run) -> str:
    """Describe the network: filters, levels, resolution, dropout, parameters."""
    shape = run.config["network"]
    filters, depth, encoder = shape["filters"], shape["depth"], shape["encoder"]
    half = ", at half the image's resolution with a light block at full resolution" if shape["half"] else ""
    dropout = [f"{rate:g}" for rate in shape["dropout"]]
    drops = f", dropout of {', '.join(dropout)} from the top level to the bottom" if any(shape["dropout"]) else ""
    initial = {"none": "random weights", "imagenet": "weights learnt on ImageNet"}[run.recipe["pretrained"]]
    path = f" with {encoder} ({initial}) as its contracting path," if encoder else ""
    return (f"a U-Net{path} with {filters} to {filters * 2**(depth - bool(encoder))} filters and {depth} "
            f"{'halvings' if encoder else 'poolings'}{half}{drops}, {run.config['parameters']:,} parameters")


def averaging(recipe: dict) -> str:
    """Say which weights are used for prediction."""
    if recipe["patience"]:
        return ("those with the least loss on a validation block, the last fifth of the training data; training "
                f"stopped when this loss had not fallen for {recipe['patience']} epochs")
    count = max(1, round(recipe["epochs"] * recipe["average"]))
    return (f"the mean of those after each of the last {count} of {recipe['epochs']} epochs ({cite('averaging')})"
            if count > 1 else "those after the last step")


def auxiliary_output(recipe: dict) -> str:
    """Describe the network's auxiliary output, '' if it has none."""
    weight = recipe.get("affinities")  # missing in runs of earlier versions
    return (f"by an auxiliary output, whose loss had the weight {weight:g}, the network also learnt whether two pixels "
            f"{OFFSETS[0][1]} to {OFFSETS[-1][0]} apart along rows, columns or diagonals lie in the same cell "
            f"({cite('affinities')})") if weight else ""


def variation(recipe: dict, channels: int) -> str:
    """Describe the random variation of each tile during training, as drawn by `unet.training.feed`."""
    strength = recipe["intensity"]
    if not strength:
        return "turned and mirrored at random"
    low, high = math.exp(-0.35 * strength), math.exp(0.35 * strength)
    gain = f", each colour channel by {math.exp(-0.22 * strength):.2f} to {math.exp(0.22 * strength):.2f}" \
        if channels > 1 else ""
    return (f"turned and mirrored at random, and varied in gamma (exponents of {low:.2f} to {high:.2f}), contrast (by "
            f"{low:.2f} to {high:.2f}){gain}, brightness (up to {20 * strength:g} of 255 grey levels) and noise (a "
            f"standard deviation of up to {12 * strength:.2g})")


# ------------------------------------------------------------------------------------------------ a run


class Words(ABC):
    """The texts about a task's runs."""

    aim: ClassVar[str]  # what was done, the beginning of the methods paragraph
    loss: ClassVar[str]  # without its weights
    borders: ClassVar[str] = "borders"  # what --weights border gives large weights to
    normalisation: ClassVar[str]  # of images, the end of a sentence that begins with "Images were"

    def __init__(self, task: Task):
        self.task = task

    @abstractmethod
    def data(self, run: Run) -> str:
        """Describe the data set, with its citation."""

    @abstractmethod
    def describe_samples(self, run: Run, numbers: list[int]) -> str:
        """Describe the samples with these numbers."""

    @abstractmethod
    def results(self, run: Run) -> str:
        """State the scores in a sentence or two; `run.scores` must not be None."""

    @abstractmethod
    def postprocessing(self, run: Run) -> list[str]:
        """Describe the steps from the probability to the result, a sentence each."""

    def data_hash(self, run: Run) -> str:
        """Return the SHA-256 of the hashes of all images and labels, which does not depend on their folder."""
        return hashlib.sha256("\n".join(sorted(run.manifest["inputs"].values())).encode()).hexdigest()

    def losses(self, run: Run) -> str:
        """Describe the loss and its weights."""
        return self.loss + {"none": "", "balance": " with balanced classes", "border": " with balanced classes, "
                            f"weighted for narrow {self.borders} ({cite('U-Net')})"}[run.geometry["weights"]]

    def schedule(self, run: Run) -> str:
        """Describe steps, optimizer and learning rate of the training."""
        recipe = run.recipe
        warmup = f"linear warm-up over {recipe['warmup']:.0%} of the schedule, then " if recipe["warmup"] else ""
        return (f"{int(run.history[-1]['step'])} steps of {recipe['batch']} tiles with {optimizer(recipe)} (learning "
                f"rate at most {recipe['lr']:g}, {warmup}cosine decay to zero, gradient norm at most 1)")

    def prediction(self, run: Run) -> str:
        """Describe how images were predicted."""
        zooms = [f"{zoom:g}" for zoom in run.recipe.get("zooms", [1.0])]
        flips = run.recipe["flips"]
        return ("whole, large ones in overlapping tiles"
                + (f", at {join_words(zooms)} times the size" if zooms != ["1"] else "")
                + (f", as the mean over {flips} of the square's eight symmetries" if flips > 1 else ""))

    def settings(self, run: Run) -> str:
        """Return a Markdown table of the run's data, split, options, seeds, machine and versions."""
        manifest, geometry, recipe, config = run.manifest, run.geometry, run.recipe, run.config
        size, noun = manifest["shape"][1:3], run.layout.noun
        preset = f"preset {config['preset']}" if config["preset"] else "no preset"
        rows = {
            "data": self.data(run),
            "task": f"{self.task.name}; the network's output is the {self.task.output}",
            f"training {noun}s": self.describe_samples(run, run.train),
            f"held-out {noun}s, for scoring only": self.describe_samples(run, run.holdout),
            f"augmented copies of each {noun}": f"{self.copies(manifest)}, seed {manifest['seed']}",
            "random changes of each copy": "; ".join(f"{name.replace('_', ' ')} {_range(value)}"
                                                      for name, value in manifest["options"].items()),
            "tiles": f"{geometry['count']} to train on, {geometry['tile']} pixels, from pages of {size[0]} x {size[1]}",
            "random changes of each tile": variation(recipe, run.config["channels"]),
            "loss": "; ".join(filter(None, (f"{self.losses(run)} (--weights {geometry['weights']})",
                                            auxiliary_output(recipe)))),
            "network": f"{network(run)} ({preset})",
            "schedule": f"{count_of(recipe['epochs'], 'epoch')} of {count_of(recipe['steps'], 'step')}; "
                        f"{self.schedule(run)}",
            "weights used for prediction": averaging(recipe),
            "seed of the training": recipe["seed"],
            "prediction": "; ".join([self.prediction(run), *self.postprocessing(run)]),
            "machine": f"{config['device'] or 'unknown'} ({recipe['precision']})",
            "training time": f"{config['seconds']:.0f} s",
            "versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items())}
        return markdown_table([("setting", "value"), *rows.items()])

    def scores(self, run: Run) -> str:
        """Return the scores of the held-out samples, together and one by one, as in the terminal; Markdown."""
        return NO_SCORES if run.scores is None else f"```text\n{self.task.table(run.scores)}\n```"

    def copies(self, manifest: dict, unit: str = "") -> str:
        """Say how many augmented copies each sample has."""
        copies = manifest["copies"]
        unit = unit.removesuffix("s") if copies == 1 else unit
        return f"{copies:.3g}{unit}{' on average' * (self.task.windowed or copies != int(copies))}"

    def augmentation(self, run: Run) -> str:
        """List the augmentations of step 1."""
        options = run.manifest["options"]
        names = {"turn_probability": "rotation and magnification", "elastic_probability": "elastic deformation",
                 "crop_probability": "cropping with symmetric padding", "brightness": "brightness",
                 "noise_probability": "noise"}
        return join_words(["flips", *(name for key, name in names.items() if options[key])])

    def paragraph(self, run: Run) -> str:
        """Return a methods paragraph for a paper: how the prediction was made, its scores, references; Markdown."""
        manifest, noun, versions = run.manifest, run.layout.noun, run.config["versions"]
        copies = (f"Each of the {len(run.train)} training {noun}s was augmented {self.copies(manifest, ' times')} by "
                  f"{self.augmentation(run)}. " if manifest["copies"] else "")
        sentences = [
            f"{self.aim} with {network(run)} ({cite('U-Net')}), trained on {self.data(run)}.",
            f"Held out beforehand and never trained on: {self.describe_samples(run, run.holdout)}.",
            f"{copies}{noun.capitalize()}s were {self.normalisation}, and cut into tiles of {run.geometry['tile']} "
            "pixels.",
            f"The loss was {self.losses(run)}. The network was trained for {self.schedule(run)}, seed "
            f"{run.recipe['seed']}.",
            f"During training, tiles were {variation(run.recipe, run.config['channels'])}.",
            *_sentences([auxiliary_output(run.recipe)]),
            f"The weights used for prediction are {averaging(run.recipe)}.",
            f"{noun.capitalize()}s were predicted {self.prediction(run)}.",
            *_sentences(self.postprocessing(run)),
            f"The software was keras-unet, with Keras {versions['keras']} on TensorFlow {versions['tensorflow']}, "
            f"Python {versions['python']}; the machine: {run.config['device'] or 'unknown'}.",
            *([self.results(run)] if run.scores else [])]
        text = " ".join(sentences)
        return text + "\n\n" + "\n".join(f"- {reference(name)}" for name in works() if cite(name) in text)
