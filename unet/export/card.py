"""A model card: a trained network described in Markdown, for those who have it without this repository."""

from __future__ import annotations

from pathlib import Path

from unet.citations import reference, version, works
from unet.inputs.voxel import Voxel
from unet.network import Network
from unet.tasks import task_of
from unet.tasks.task import Task
from utils import read_json


def card(model: Path, config: dict) -> str:
    """Describe a network: its purpose, input and output, its scores on held-out data, and whom to cite."""
    task, network = task_of(config), Network(**config["network"])
    return "\n\n".join([f"# {title(task)}", purpose(task, config), "## Input", describe_input(task, network),
                        "## Output", describe_output(task, network), "## Validation on held-out data",
                        describe_scores(model, task), "## Citation",
                        "\n".join(f"- {reference(name)}" for name in works())]) + "\n"


def title(task: Task) -> str:
    """Return the network's name."""
    return f"U-Net for {task.meaning}"


def purpose(task: Task, config: dict) -> str:
    """Describe what the network was trained on, so that others see whether it suits their images."""
    split, noun = config["split"], getattr(task, "noun", "image")
    size = f", here {Voxel(**config['voxel']).describe()}" if config.get("voxel") else ""
    colours = "coloured (red, green, blue)" if config["channels"] == 3 else "gray"
    return (f"A U-Net that predicts the {task.output}. It was trained with {version()} on {len(split['train'])} "
            f"{colours} {noun}s of one user's data, and is meant for similar images: the same stain, microscope and "
            f"pixel size{size}. For other images, check the result before you trust it.")


def describe_input(task: Task, network: Network) -> str:
    """Describe axes, sizes and normalisation of the input."""
    sides = (f"{2 * network.shrinkage + 4} plus a multiple of {network.stride} pixels; the output is "
             f"{network.shrinkage} pixels smaller on each side" if network.padding == "valid" else
             f"multiples of {network.stride} pixels")
    steps, limits = task.portable()
    words = {"zero_mean_unit_variance": "normalise the whole image, not each tile, to a mean of 0 and a standard "
                                        "deviation of 1",
             "scale_range": "stretch each channel of the whole image, not of each tile, so that the percentiles "
                            "{min_percentile} and {max_percentile} become 0 and 1",
             "scale_linear": "multiply by {gain:g} and add {offset:g}",
             "clip": "clip to {min:g} .. {max:g}",
             "ensure_dtype": "remove the digits after the decimal point"}
    cut_off = network.margin - (network.shrinkage if network.padding == "valid" else 0)  # a valid output lacks the rest
    lines = [f"{number}. {words[name].format(**values)}" for number, (name, values) in enumerate(steps, 1)]
    return (f"float32 (batch, height, width, channel), grey levels; height and width must be {sides}. The bioimage.io "
            "package normalises images itself. For the other formats, normalise them first:\n\n"
            + "\n".join(lines or ["1. nothing: grey levels 0 .. 255 are used as they are"]) + f"\n\n{limits} To avoid "
            f"seams, let tiles overlap by {2 * network.margin} pixels, and cut {cut_off} off all sides of each "
            "output, except where the image ends.")


def describe_output(task: Task, network: Network) -> str:
    """Describe the output, and what it does not include."""
    return (f"float32 (batch, height, width, {network.classes}): the {task.output}, 0 .. 1, from one pass of the "
            "network. Averaging over flips, walls along membranes and the numbering of objects are part of "
            "`predict.py`, not of the network: without them, scores are lower than those below.")


def describe_scores(model: Path, task: Task) -> str:
    """Return the table of scores on held-out data, or say that there are none."""
    path = model.with_name("metrics.json")
    if not path.is_file():
        return "Nothing was held out, or it was not scored: there are no scores."
    table = task.table(read_json(path, "run 'python train.py --resume'"))
    return f"Scores of data held out from training, predicted by `predict.py`:\n\n```text\n{table}\n```"
