"""The part of the report that one can use: slices to scroll through, what is in them, what to label next; HTML.

What it looks like is in viewer.html, what it does in viewer.js: plain JavaScript, no network. Every picture is in the
page. Objects come as a PNG of their numbers, which the browser colours, so that a click knows what it hit.
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

from unet.report.base import Pictures, spread
from unet.report.pictures import Panel
from unet.scores.doubt import Doubt
from unet.tasks.task import Judged

if TYPE_CHECKING:
    from unet.report.run import Run

HERE = Path(__file__).resolve().parent
MOST = 40  # samples that nobody labelled in the page at most, and as many held-out ones
NEXT = 10  # rows of what to label next
SIDE = 1024  # of a picture at most, pixels: larger ones are shown smaller
QUALITY = 75  # of JPEG
DISAGREEMENT = ("Disagreement is the standard deviation between the flips whose mean the probability is, at the same "
                "pixels; it ranks nothing. ")
FIRST = 2  # pictures that are shown before any is asked for, beside the objects


def viewer(run: Run, pictures: Pictures) -> str:
    """The viewer of a run's held-out and predicted samples, and what to label next; empty where there are none."""
    doubts = run.doubts[:NEXT]
    names = run.to_predict.names if len(run.to_predict) else []
    numbers = sorted({*spread(range(len(names)), MOST), *(names.index(one.name) for one in doubts)})
    judged = spread(run.judged, MOST)
    predicted = run.predicted(numbers)
    samples = [*((one, f"{one.sample.name}, held out") for one in judged),
               *((one, one.sample.name) for one in predicted)]
    if not samples:
        return ""
    palettes = [*pictures.palettes([one.objects for one in judged]),
                *pictures.palettes([one.objects for one in predicted])]
    content = {"objects": pictures.object_name,
               "samples": [_sample(pictures, run, one, name, palette)
                           for (one, name), palette in zip(samples, palettes, strict=True)]}
    count = len(run.judged) + len(names)
    places = {one.sample.name: (len(judged) + place, _step(one)) for place, one in enumerate(predicted)}
    return Template((HERE / "viewer.html").read_text(encoding="utf-8")).substitute(
        noun=run.layout.noun, objects=pictures.object_name,
        shown=f"Here are {len(samples)} of {count}." if len(samples) < count else "",
        next=next_to_label([one for one in doubts if one.name in places], places, pictures, run.layout.noun),
        data=json.dumps(content, separators=(",", ":")).replace("</", "<\\/"),
        script=(HERE / "viewer.js").read_text(encoding="utf-8"))


def _step(one: Judged) -> int:
    """Of how many pixels, each way, one is shown."""
    return -(-max(one.sample.image.shape[:2]) // SIDE)


def _sample(pictures: Pictures, run: Run, one: Judged, name: str, palette: np.ndarray) -> dict:
    """A sample with all its pictures, ready for JSON; places and sizes are those of the picture as it is shown."""
    step = _step(one)
    layers = [{"kind": panel.title.split(":")[0].split("\n")[0], "title": panel.title.replace("\n", ", "),
               "source": encoded(panel, step), "first": place < FIRST}
              for place, panel in enumerate(pictures.layers(one, run.learnt))]
    objects = one.objects[::step, ::step]
    if pictures.object_name:
        hexes = "".join(f"{red:02x}{green:02x}{blue:02x}" for red, green, blue in np.rint(palette * 255).astype(int))
        layers.insert(FIRST, {"kind": pictures.object_name, "title": f"{one.objects.max()} {pictures.object_name}",
                              "source": data_url(_numbers(objects), "PNG"), "first": True, "palette": hexes})
    return {"name": name, "size": objects.shape, "pictures": layers,
            "objects": [{"number": region.label, "area": int(region.area),
                         "y": round(region.centroid[0]), "x": round(region.centroid[1]),
                         "box": [edge // step for edge in region.bbox]}
                        for region in regionprops(one.objects)] if pictures.object_name else []}


def _numbers(objects: np.ndarray) -> np.ndarray:
    """Numbers of objects (H, W) as colours uint8 (H, W, 3): red is the number modulo 256, green what is above."""
    return np.stack([objects & 255, objects >> 8 & 255, np.zeros_like(objects)], axis=-1).astype(np.uint8)


def encoded(panel: Panel, step: int = 1) -> str:
    """A picture as a URL that holds it: as PNG or JPEG, whichever is smaller."""
    array = panel.array[::step, ::step]
    array = array if array.dtype == np.uint8 else np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return min((data_url(array, kind) for kind in ("PNG", "JPEG")), key=len)


def data_url(array: np.ndarray, kind: str) -> str:
    """An image uint8 (H, W[, 3]) as a URL that holds it."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, kind, quality=QUALITY, optimize=True)
    return f"data:image/{kind.lower()};base64,{b64encode(file.getvalue()).decode()}"


def next_to_label(doubts: Sequence[Doubt], places: dict[str, tuple[int, int]], pictures: Pictures, noun: str) -> str:
    """A table of what to label next, least sure first, with buttons that go there.

    `places` says for each name where the slider is to go, and of how many pixels one is shown.
    """
    if not doubts:
        return ""
    rows, disagree = [], any(one.disagreement is not None for one in doubts)
    heads = ["rank", noun, "doubt", *["disagreement"] * disagree, "tiles and their doubt"]
    for rank, one in enumerate(doubts, 1):
        place, step = places[one.name]
        boxes = [[edge // step for edge in (tile.y, tile.x, tile.y + tile.height, tile.x + tile.width)]
                 for tile in one.tiles]
        buttons = " ".join(f'<button data-tile="{[place, *box]}">y {tile.y}, x {tile.x}: {tile.doubt:.3f}</button>'
                           for tile, box in zip(one.tiles, boxes, strict=True))
        flips = f"<td>{'' if one.disagreement is None else f'{one.disagreement:.3f}'}</td>" if disagree else ""
        rows.append(f"<tr><td>{rank}</td><td>{html.escape(one.name)}</td><td>{one.doubt:.3f}</td>{flips}"
                    f"<td>{buttons}</td></tr>")
    return (f"<h2>What to label next</h2><p>Of the {noun}s that nobody labelled these are the ones that the network is "
            f"least sure of: by the entropy of its probability, {pictures.doubt_means}, 0 = sure, 1 = knows nothing. "
            "Beside each the tiles with most of it; a button goes there. All are in next.csv. "
            f"{DISAGREEMENT if disagree else ''}The network does not know what it is sure of and wrong about: look at "
            f"a few others, too.</p><table><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>")
