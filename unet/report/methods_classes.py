"""A run on several classes in words: settings, scores class by class, the paragraph for a paper's methods; Markdown."""

from __future__ import annotations

from unet.report.lastrun import StackRun
from unet.report.methods import ISBI_VOLUME, methods_of_stacks, references, software_in_words, table
from unet.report.methods import settings as settings  # those of any stack

LOSSES = {"none": "cross-entropy", "balance": "cross-entropy with balanced classes"}


def scores(run: StackRun) -> str:
    """The hold-out's scores, of each class and of each slice; Markdown tables."""
    if run.scores is None:
        return "No slice was held out of this run, or it was stopped before it was judged: there are no scores."

    def value(number: float | None) -> str:
        return "absent" if number is None else f"{number:.4f}"

    classes = [(f"class {row['class']}", row["pixels"], value(row["iou"]), value(row["dice"]))
               for row in run.scores["classes"]]
    mean = run.scores["mean"]
    total = sum(row["pixels"] for row in run.scores["classes"])
    slices = [(f"slice {row['slice']}", value(row["mean"]["iou"]), value(row["mean"]["dice"]), value(row["accuracy"]))
              for row in run.scores["per_slice"]]
    return (f"**All held-out slices**; {run.scores['accuracy']:.2%} of the pixels have the right class.\n\n"
            + table([("", "pixels", "IoU", "Dice"), *classes, ("mean", total, value(mean["iou"]), value(mean["dice"]))])
            + "\n\n**Slice by slice**, means over the classes.\n\n"
            + table([("", "IoU", "Dice", "accuracy"), *slices])
            + "\n\nIoU = TP / (TP + FP + FN), Dice = 2 TP / (2 TP + FP + FN), in pixels; 1 is perfect.")


def paragraph(run: StackRun) -> str:
    """The methods of a paper: what was done to get the prediction, how good it is, and whom to cite; Markdown."""
    text = (methods_of_stacks(run, f"Pixels were told apart into {run.classes} classes",
                              LOSSES.get(run.geometry["weights"], "a weighted cross-entropy"))
            + f" Each pixel belongs to its most probable class (softmax). {software_in_words(run)}")
    if run.scores:
        text += (f" On the held-out slices the mean intersection over union of the classes was "
                 f"{run.scores['mean']['iou']:.4f}, the mean Dice coefficient {run.scores['mean']['dice']:.4f}; "
                 f"{run.scores['accuracy']:.2%} of the pixels had the right class.")
    return text + "\n\n" + references("U-Net", *(["stack"] if run.data_hash == ISBI_VOLUME else []))
