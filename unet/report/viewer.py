"""The interactive part of the report, as HTML: slices to scroll through, their objects, what to label next.

Its layout is in viewer.html, its behaviour in viewer.js: plain JavaScript, which works offline. All pictures are in the
page. Objects are a PNG of their numbers, which the browser colours, so that a click finds the object's number.
"""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from skimage.measure import regionprops

from unet.report.base import Pictures, pick_evenly
from unet.report.pictures import Panel
from unet.scores.doubt import Doubt
from unet.tasks.task import Prediction

if TYPE_CHECKING:
    from unet.report.run import Run

HERE = Path(__file__).resolve().parent
MOST_SAMPLES = 40  # unlabelled samples in the page, besides those to label next, and held-out ones, at most
NEXT_ROWS = 10  # rows in the table of what to label next, at most
PICTURE_SIDE = 1024  # side of a picture at most, pixels: larger ones are shown smaller
QUALITY = 75  # of JPEG
DISAGREEMENT = ("Disagreement is the standard deviation between the predictions of the flipped image, at the same "
                "pixels; it does not affect the rank. ")
FIRST = 2  # pictures that are shown at first, beside the objects


def viewer(run: Run, pictures: Pictures) -> str:
    """Return the viewer of a run's held-out and unlabelled samples, and what to label next; '' if there are none."""
    doubts = run.doubts[:NEXT_ROWS]
    names = run.to_predict.names if len(run.to_predict) else []
    numbers = sorted({*pick_evenly(range(len(names)), MOST_SAMPLES), *(names.index(one.name) for one in doubts)})
    holdout, unlabelled = pick_evenly(run.holdout_predictions, MOST_SAMPLES), run.predictions(numbers)
    samples = [*((one, f"{one.sample.name}, held out") for one in holdout),
               *((one, one.sample.name) for one in unlabelled)]
    if not samples:
        return ""
    palettes = [*pictures.palettes([one.objects for one in holdout]),
                *pictures.palettes([one.objects for one in unlabelled])]
    content = {"objects": pictures.object_name,
               "samples": [_sample(pictures, run, one, name, palette)
                           for (one, name), palette in zip(samples, palettes, strict=True)]}
    count = len(run.holdout_predictions) + len(names)
    places = {one.sample.name: (len(holdout) + place, _step(one)) for place, one in enumerate(unlabelled)}
    return Template((HERE / "viewer.html").read_text(encoding="utf-8")).substitute(
        noun=run.layout.noun, objects=pictures.object_name,
        shown=f"{len(samples)} of {count} are shown here." if len(samples) < count else "",
        next=next_to_label([one for one in doubts if one.name in places], places, pictures, run.layout.noun),
        data=json.dumps(content, separators=(",", ":")).replace("</", "<\\/"),
        script=(HERE / "viewer.js").read_text(encoding="utf-8"))


def _step(prediction: Prediction) -> int:
    """Return the number n such that every n-th pixel of an image is shown, in both directions."""
    return -(-max(prediction.sample.image.shape[:2]) // PICTURE_SIDE)


def _sample(pictures: Pictures, run: Run, prediction: Prediction, name: str, palette: np.ndarray) -> dict:
    """Return a sample with all its pictures, ready for JSON; sizes and boxes are in pixels of the picture shown."""
    step = _step(prediction)
    layers = [{"kind": panel.title.split(":")[0].split("\n")[0], "title": panel.title.replace("\n", ", "),
               "source": picture_url(panel, step), "first": place < FIRST}
              for place, panel in enumerate(pictures.layers(prediction, run.learnt))]
    objects = prediction.objects[::step, ::step]
    if pictures.object_name:
        hexes = "".join(f"{red:02x}{green:02x}{blue:02x}" for red, green, blue in np.rint(palette * 255).astype(int))
        layers.insert(FIRST, {"kind": pictures.object_name,
                              "title": f"{prediction.objects.max()} {pictures.object_name}",
                              "source": data_url(_numbers(objects), "PNG"), "first": True, "palette": hexes})
    return {"name": name, "size": objects.shape, "pictures": layers,
            "objects": [{"number": region.label, "area": int(region.area),
                         "y": round(region.centroid[0]), "x": round(region.centroid[1]),
                         "box": [edge // step for edge in region.bbox]}
                        for region in regionprops(prediction.objects)] if pictures.object_name else []}


def _numbers(objects: np.ndarray) -> np.ndarray:
    """Encode numbers of objects (H, W) as colours uint8 (H, W, 3): red = number modulo 256, green = number // 256."""
    return np.stack([objects & 255, objects >> 8 & 255, np.zeros_like(objects)], axis=-1).astype(np.uint8)


def picture_url(panel: Panel, step: int) -> str:
    """Return a panel's picture as a data URL: PNG or JPEG, whichever is smaller."""
    array = panel.array[::step, ::step]
    array = array if array.dtype == np.uint8 else np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return min((data_url(array, file_format) for file_format in ("PNG", "JPEG")), key=len)


def data_url(array: np.ndarray, file_format: str) -> str:
    """Return an image uint8 (H, W[, 3]) as a data URL."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, file_format, quality=QUALITY, optimize=True)
    return f"data:image/{file_format.lower()};base64,{b64encode(file.getvalue()).decode()}"


def next_to_label(doubts: Sequence[Doubt], places: dict[str, tuple[int, int]], pictures: Pictures, noun: str) -> str:
    """Return a table of what to label next, least sure first, with buttons that go there; HTML.

    `places` has, for each name, the position of the slider and the step between pixels that are shown.
    """
    if not doubts:
        return ""
    rows, has_disagreement = [], any(one.disagreement is not None for one in doubts)
    heads = ["rank", noun, "doubt", *["disagreement"] * has_disagreement, "tiles and their doubt"]
    for rank, one in enumerate(doubts, 1):
        place, step = places[one.name]
        boxes = [[edge // step for edge in (tile.y, tile.x, tile.y + tile.height, tile.x + tile.width)]
                 for tile in one.tiles]
        buttons = " ".join(f'<button data-tile="{[place, *box]}">y {tile.y}, x {tile.x}: {tile.doubt:.3f}</button>'
                           for tile, box in zip(one.tiles, boxes, strict=True))
        disagreement = "" if one.disagreement is None else f"{one.disagreement:.3f}"
        cell = f"<td>{disagreement}</td>" if has_disagreement else ""
        rows.append(f"<tr><td>{rank}</td><td>{html.escape(one.name)}</td><td>{one.doubt:.3f}</td>{cell}"
                    f"<td>{buttons}</td></tr>")
    return (f"<h2>What to label next</h2><p>These are the unlabelled {noun}s that the network is least sure of. Doubt "
            f"is the entropy of its probability, averaged {pictures.doubt_region}: 0 = sure, 1 = undecided. Beside "
            f"each {noun} are the tiles with most doubt; a button goes to its tile. The whole list is in next.csv. "
            f"{DISAGREEMENT if has_disagreement else ''}The network cannot know where it is sure but wrong: look at a "
            f"few other {noun}s, too.</p><table><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>")
