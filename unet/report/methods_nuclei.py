"""A run on nuclei images in words: settings, scores kind by kind, the paragraph for a paper's methods; Markdown."""

from __future__ import annotations

from collections import Counter

import numpy as np

from unet.inputs.folders import KINDS
from unet.report.lastrun import NucleiRun
from unet.report.methods import (
    LOSSES,
    common_settings,
    network_in_words,
    references,
    software_in_words,
    table,
    training_in_words,
)
from unet.segment.instances import NUCLEUS, SMALLEST

SHOWN = ("0.50", "0.60", "0.70", "0.80", "0.90")  # of the thresholds of the intersection over union
PIXELS = ("accuracy", "iou")


def counted(kinds: list[str]) -> str:
    """How many images of each kind, as '3 fluorescence, 1 histology'."""
    counts = Counter(kinds)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "none"


def _sizes(run: NucleiRun) -> str:
    shapes = sorted(tuple(image["shape"]) for image in run.manifest["images"])
    ends = [f"{height} x {width}" for height, width in (shapes[0], shapes[-1])]
    return f"{ends[0]} pixels" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} pixels"


def settings(run: NucleiRun) -> str:
    """All that the run was made with: data, split, options, seeds, machine, versions; a Markdown table."""
    names = [run.manifest["images"][number]["name"][:8] for number in run.holdout]
    tiles, resize = run.geometry, run.manifest["resize"]
    same = {name: (name, value) for name, value in common_settings(run).items()}
    cut = f"whole images squeezed to {resize} x {resize} pixels" if resize else \
        f"windows of {run.manifest['shape'][1]} pixels at the images' own resolution"
    return table([
        ("setting", "value"),
        ("data", f"{len(run.manifest['images'])} images with masks: "
                 f"{counted([image['kind'] for image in run.manifest['images']])}; {_sizes(run)} (SHA-256: "
                 f"{run.data_hash[:16]})"),
        ("images that trained", counted([run.kind_of(number) for number in run.train])),
        ("images that judged, and never trained", counted([run.kind_of(number) for number in run.holdout])
         + (f" ({', '.join(names[:40])}{', ...' * (len(names) > 40)})" if names else "")),
        ("augmented copies of each image", f"{run.manifest['copies']} on average, more of rare kinds; seed "
                                           f"{run.manifest['seed']}"),
        same["drawn for each copy"],
        ("tiles", f"{cut}; {tiles['counts']['train']} tiles of {tiles['tile']} pixels to train on"),
        ("grey levels", tiles["levels"]),
        same["weights of the loss"],
        same["network"],
        same["schedule"],
        same["seed of the training"],
        ("prediction", f"mean of {run.config['recipe'].get('flips', 1)} flips and turns; nuclei where the probability "
                       f"is over {NUCLEUS:g}, apart by a seeded watershed"),
        same["machine"],
        same["time to train"],
        same["versions"],
    ])


def _pixels(rows: list[dict]) -> tuple[str, ...]:
    """Accuracy and IoU of the pixels, means over images."""
    return tuple(f"{np.mean([row[name] for row in rows]):.3f}" for name in PIXELS)


def scores(run: NucleiRun) -> str:
    """The hold-out's scores, of each kind and of each image; Markdown tables."""
    if run.scores is None:
        return "No image was held out of this run, or it was stopped before it was judged: there are no scores."
    images = run.scores["per_image"]
    head = ("true", "predicted", *(f"AP at .{at[2:]}" for at in SHOWN), "mean AP", "accuracy", "IoU")

    def row(one: dict, members: list[dict]) -> tuple:
        return (one["true"], one["predicted"], *(f"{one['ap'][at]:.3f}" for at in SHOWN), f"{one['mean']:.3f}",
                *_pixels(members))

    sets = [(kind, one["images"], *row(one, [image for image in images if image["modality"] == kind]))
            for kind, one in sorted(run.scores["modalities"].items(), key=lambda item: KINDS.index(item[0]))]
    every = run.scores["all"]
    worst_first = sorted(images, key=lambda image: (KINDS.index(image["modality"]), image["mean"]))
    return ("**All held-out images.** AP = TP / (TP + FP + FN), where a predicted and a true nucleus are a pair, TP, "
            "if their intersection over union is greater than the value above the column; mean AP: over .50, .55, "
            "... .95, as the Data Science Bowl of 2018 scored. Of a set it is the mean over its images. Accuracy and "
            "IoU are of pixels.\n\n"
            + table([("", "images", *head), *sets, ("all", every["images"], *row(every, images))])
            + "\n\n**Image by image**, the worst of each kind first.\n\n"
            + table([("", "kind", *head), *((image["image"][:12], image["modality"], *row(image, [image]))
                                            for image in worst_first)]))


def paragraph(run: NucleiRun) -> str:
    """The methods of a paper: what was done to get the nuclei, how good they are, and whom to cite; Markdown."""
    recipe, resize = run.config["recipe"], run.manifest["resize"]
    judged = (f"{len(run.holdout)} ({counted([run.kind_of(number) for number in run.holdout])}) were held out "
              "beforehand and never trained") if run.holdout else "no image was held out"
    augmented = (f", augmented {run.manifest['copies']} times on average by flips, rotation, magnification, elastic "
                 "deformation, noise and brightness" if run.manifest["copies"] else "")
    if resize:
        tiles = f"Whole images were squeezed to {resize} x {resize} pixels{augmented}."
    else:
        tiles = (f"Windows of {run.manifest['shape'][1]} pixels were cut from the {len(run.train)} training images at "
                 f"their own resolution{augmented}. Bright images were inverted, and each channel was stretched "
                 "between two percentiles of the whole image. Where nuclei touch, the pixels on both sides of their "
                 "border were labelled as background.")
    flips = recipe.get("flips", 1)
    turned = f", as the mean over {flips} of the square's symmetries," if flips > 1 else ""
    text = (
        f"Nuclei were segmented with {network_in_words(run)} (Ronneberger et al. 2015), trained on images of "
        f"{_sizes(run)} ({counted([image['kind'] for image in run.manifest['images']])}; SHA-256 of all their files' "
        f"hashes: {run.data_hash[:16]}). Of these, {judged}. {tiles} "
        f"The network was {training_in_words(run, LOSSES.get(run.geometry['weights'], 'a weighted cross-entropy'))}. "
        f"Images were predicted{turned} in overlapping tiles and stitched. Nuclei are where the probability is over "
        f"{NUCLEUS:g}; a seeded watershed took touching ones apart, and objects under {SMALLEST} pixels were "
        f"dropped. {software_in_words(run)}")
    if run.scores:
        at = run.scores["all"]
        text += (f" On the held-out images the average precision, TP / (TP + FP + FN), was {at['ap']['0.50']:.3f} at "
                 f"an intersection over union of .5, and {at['mean']:.3f} as the mean over .50, .55, ... .95 (the "
                 "score of the 2018 Data Science Bowl; Caicedo et al. 2019).")
    return (text + "\n\n" + references("U-Net", *(["nuclei"] if run.scores else [])) + "\n\nIf these are images of the "
            "2018 Data Science Bowl (BBBC038 of the Broad Bioimage Benchmark Collection), Caicedo et al. 2019 is to be "
            "cited for them, too" + ("." if run.scores else ":\n\n" + references("nuclei")))
