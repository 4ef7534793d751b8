"""A trained network in words, for those who have it without this repository; Markdown."""

from __future__ import annotations

from pathlib import Path

from unet.citations import reference, version, works
from unet.inputs.voxel import Voxel
from unet.network import Network
from unet.tasks import task_of
from unet.tasks.task import Task
from utils import read_json


def card(model: Path, config: dict) -> str:
    """What a network is for, what goes in and comes out, its scores on what was held out, and whom to cite."""
    task, network = task_of(config), Network(**config["network"])
    return "\n\n".join([f"# {title(task)}", aim(task, config), "## What goes in", goes_in(task, network),
                        "## What comes out", comes_out(task, network), "## Validation on held-out data",
                        scores(model, task), "## Whom to cite", cite()]) + "\n"


def title(task: Task) -> str:
    """The network's name."""
    return f"U-Net for {task.meaning}"


def aim(task: Task, config: dict) -> str:
    """What it was trained on, so that others see whether it is for their images."""
    split, noun = config["split"], getattr(task, "noun", "image")
    size = f", here {Voxel(**config['voxel']).in_words()}" if config.get("voxel") else ""
    colours = "coloured (red, green, blue)" if config["channels"] == 3 else "gray"
    return (f"A U-Net that gives the {task.output}. It was trained with {version()} on {len(split['train'])} {colours} "
            f"{noun}s of one user's data, and is for images like those: the same stain, microscope and size of "
            f"pixels{size}. On others look at the result before you trust it.")


def goes_in(task: Task, network: Network) -> str:
    """Axes, sizes and normalisation of the input."""
    sides = (f"{2 * network.shrinkage + 4} plus a multiple of {network.stride} pixels; the output is "
             f"{network.shrinkage} pixels smaller on each side" if network.padding == "valid" else
             f"multiples of {network.stride} pixels")
    steps, limits = task.portable()
    words = {"zero_mean_unit_variance": "bring the whole image, not each tile, to a mean of 0 and a standard deviation "
                                        "of 1", "scale_range": "stretch each channel of the whole image, not of each "
             "tile, so that the percentiles {min_percentile} and {max_percentile} become 0 and 1",
             "scale_linear": "multiply by {gain:g} and add {offset:g}", "clip": "clip to {min:g} .. {max:g}",
             "ensure_dtype": "cut off what is behind the decimal point"}
    lines = [f"{number}. {words[name].format(**values)}" for number, (name, values) in enumerate(steps, 1)]
    return (f"float32 (batch, height, width, channel), grey levels; sides are {sides}. The bioimage.io package brings "
            "images to what the network takes by itself. With the other formats do it before:\n\n"
            + "\n".join(lines or ["1. nothing: grey levels 0 .. 255 go in as they are"]) + f"\n\n{limits} For tiles "
            f"without seams, let tiles overlap by {2 * network.margin} pixels and cut {network.margin} off what comes "
            "out, on all sides but those where the image ends.")


def comes_out(task: Task, network: Network) -> str:
    """The output, and what is not in it."""
    return (f"float32 (batch, height, width, {network.classes}): the {task.output}, 0 .. 1, of one pass of the "
            "network. Averaging over flips, walls along membranes and the numbering of objects are `predict.py`'s, not "
            "the network's: without them scores are lower than those below.")


def scores(model: Path, task: Task) -> str:
    """The scores of what judged and never trained."""
    path = model.with_name("metrics.json")
    if not path.is_file():
        return "Nothing was held out, or it was not judged: there are no scores."
    table = task.table(read_json(path, "run 'python train.py --resume'"))
    return f"Of what was held out beforehand and never trained, predicted by `predict.py`:\n\n```text\n{table}\n```"


def cite() -> str:
    """The list of references."""
    return "\n".join(f"- {reference(name)}" for name in works())
