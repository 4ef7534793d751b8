"""The network as a picture: its feature maps in the shape of a U, and the overlap tiles that it predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import keras
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from unet.engines.windows import overlap_tiles
from unet.network import Network
from unet.report.base import plain
from unet.report.pictures import BLUE, DPI, GREEN, ORANGE, PURPLE, SKY, YELLOW, Panel, frame, grid, message
from unet.training.encoders import build

if TYPE_CHECKING:
    from unet.report.run import Run

DRAWN = ("InputLayer", "Conv2D", "Conv2DTranspose", "Concatenate")  # whose output is a feature map of its own
MOST = 6  # feature maps drawn of one level and side; of more, the first and the last
HEIGHT = 0.62  # of a box, where levels are 1 apart
ARROWS = {"convolution": BLUE, "half the size": ORANGE, "twice the size": GREEN, "copied across": PURPLE}


def draw_overlap_tiles(run: Run) -> Figure:
    """How a whole image is predicted: tiles with their margins, and the probability stitched of the cores.

    One that fits into a single tile is cut as a larger one would be.
    """
    one = next(iter(run.predicted(range(min(1, len(run.to_predict)))) or run.judged), None)
    if one is None:
        return message("Nothing was predicted in this run yet.")
    image = run.task.normalise(one.sample.image, run.task.levels(one.sample.image))
    network, shape = Network(**run.config["network"]), image.shape[:2]
    tiles = overlap_tiles(network, shape)
    single = len(tiles) == 1
    if single:
        tiles = overlap_tiles(network, shape, math.ceil(max(shape) / 3), min(network.margin, max(shape) // 8))
    figure, axes = grid([[Panel(plain(image), one.sample.name[:20], "grey level, as the network sees it"),
                          Panel(one.probability.max(axis=-1) if one.probability.ndim == 3 else one.probability,
                                "stitched", run.task.output if run.task.classes == 1 else "greatest probability")]],
                        f"How an image is predicted: in {'' if single else f'{len(tiles)} '}overlap tiles, each a core "
                        "(blue) and what lies around it (yellow: one whole tile), as far as the network looks and the "
                        "image goes. Of what is predicted the cores count: no seam is left."
                        + " This image fits into one tile; the frames show how a larger one is cut." * single, 4.2)
    for y, x in tiles.corners():
        high, wide = (min(core, size - start) for core, size, start in zip(tiles.cores, shape, (y, x), strict=True))
        frame(axes[0, 0], (y, x), (high, wide), SKY, 3)
    first, size = tiles.window(tiles.corners()[len(tiles) // 2])
    frame(axes[0, 0], first, size, YELLOW, 3, linestyle="--")
    return figure


@dataclass
class FeatureMap:
    """What a layer puts out: side in pixels, channels; and its place in the U."""

    name: str
    side: int
    channels: int
    level: int  # halvings down from the image
    rising: bool  # on the way up
    sources: list[str] = field(default_factory=list)  # the drawn maps that it was made of


def feature_maps(model: keras.Model, tile: int) -> list[FeatureMap]:
    """The feature maps of a functional Keras model for an input of `tile` pixels, in the order they are computed."""
    shapes = keras.Model(model.inputs, [layer.output for layer in model.layers]).compute_output_shape(
        (1, tile, tile, model.inputs[0].shape[-1]))
    maps: dict[str, FeatureMap] = {}
    nearest: dict[str, list[str]] = {}  # of each layer, the drawn maps behind its output
    level: dict[str, int] = {}
    sides: dict[str, int] = {}
    climbs: dict[str, bool] = {}
    for layer, (_, side, _, channels) in zip(model.layers, shapes, strict=True):
        parents = _parents(layer)
        low = max(parents, key=lambda name: climbs[name], default=None)  # of a join, the branch that comes from below
        step = 0 if low is None else (side < 0.6 * sides[low]) - (side > 1.7 * sides[low])
        level[layer.name] = step + (0 if low is None else level[low])
        sides[layer.name] = side
        climbs[layer.name] = step < 0 or any(climbs[name] for name in parents)
        sources = [name for parent in parents for name in nearest[parent]]
        nearest[layer.name] = sources
        if type(layer).__name__ in DRAWN:
            maps[layer.name] = FeatureMap(layer.name, side, channels, level[layer.name], climbs[layer.name], sources)
            nearest[layer.name] = [layer.name]
    return list(maps.values())


def _parents(layer: keras.Layer) -> list[str]:
    """Names of the layers whose outputs go into a layer."""
    if isinstance(layer, keras.layers.InputLayer):
        return []
    tensors = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation.name for tensor in tensors]


def draw_network(network: Network, channels: int = 1, tile: int = 256) -> Figure:
    """Draw a U-Net for input tiles of `tile` pixels: boxes are feature maps, arrows what makes one of another."""
    model = build(network, channels, {"mean": 0.0, "sd": 255.0})
    maps = _arranged(feature_maps(model, tile))
    depth, most = max(one.level for one in maps), max(one.channels for one in maps)
    figure = Figure(figsize=(12, 1.15 * depth + 2.2), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    boxes = {}
    for column, one in enumerate(maps):
        boxes[one.name] = box = Box(column, -one.level, 0.12 + 0.4 * one.channels / most)
        box.draw(axis, one, [boxes[source] for source in one.sources] if len(one.sources) > 1 else [])
    for one in maps:
        for source in one.sources:
            _arrow(axis, boxes[source], boxes[one.name], copied=len(one.sources) > 1)
    axis.set(xlim=(-0.8, len(maps) - 0.2), ylim=(-depth - 0.35, HEIGHT + 0.3))
    axis.axis("off")
    for meaning, colour in ARROWS.items():
        axis.plot([], [], color=colour, linewidth=2, label=meaning)
    axis.legend(loc="lower left", fontsize=9, frameon=False)
    figure.supxlabel(f"The network, {model.count_params():,} parameters. Above each feature map its channels, below it "
                     f"its height and width in pixels, for a tile of {tile} pixels.\nThe left half looks at ever "
                     "larger surroundings; the right half brings what it saw back to single pixels, with the help of "
                     "the copies (purple).", x=0.01, ha="left", fontsize=10)
    return figure


def _arranged(maps: list[FeatureMap]) -> list[FeatureMap]:
    """The maps from left to right: down, then up, without those that are a part of the next or one of very many."""
    groups: dict[tuple[int, bool], list[FeatureMap]] = {}
    for one in maps:
        groups.setdefault((one.level, one.rising), []).append(one)
    joins = [one for one in maps if len(one.sources) > 1]
    parts = {source for one in joins for source in one.sources}
    made_of: dict[str, str] = {}
    kept = []
    for one in maps:
        group = groups[one.level, one.rising]
        many = len(group) > MOST and one not in (group[0], group[-1]) and one.name not in parts and one not in joins
        if (one.name in parts and one.rising) or many:  # what came from below is drawn as a part of the join
            made_of[one.name] = made_of.get(one.sources[0], one.sources[0])
        else:
            one.sources = [made_of.get(source, source) for source in one.sources]
            kept.append(one)
    return sorted(kept, key=lambda one: (one.rising, one.level if not one.rising else 0))  # the rest stays in order


@dataclass
class Box:
    """Where a feature map is drawn: its middle, its lower edge, its width."""

    x: float
    y: float
    width: float

    def draw(self, axis: Axes, one: FeatureMap, sources: list[Box]) -> None:
        """Draw the box and its sizes; of a join the part that was copied across is tinted."""
        left = self.x - self.width / 2
        axis.add_patch(Rectangle((left, self.y), self.width, HEIGHT, facecolor="#e8f1f8", edgecolor="black"))
        if sources:
            axis.add_patch(Rectangle((left, self.y), self.width / 2, HEIGHT, facecolor=PURPLE, edgecolor="black"))
        axis.text(self.x, self.y + HEIGHT + 0.03, f"{one.channels}", ha="center", va="bottom", fontsize=9)
        axis.text(self.x, self.y - 0.04, f"{one.side}²", ha="center", va="top", fontsize=8, color="#444444")


def _arrow(axis: Axes, source: Box, target: Box, copied: bool) -> None:
    """An arrow from one feature map to another, in the colour of what lies between."""
    kind = "half the size" if target.y < source.y else "twice the size" if target.y > source.y else \
        "copied across" if copied else "convolution"
    right, left = source.x + source.width / 2, target.x - target.width / 2
    if target.y < source.y:  # from below the size that is written there
        start, end = (source.x, source.y - 0.2), (left, target.y + HEIGHT / 2)
    elif target.y > source.y:  # from above the channels; the middle of the join belongs to the copy
        start, end = (source.x, source.y + HEIGHT + 0.18), (left, target.y + HEIGHT / 4)
    else:
        start, end = (right, source.y + HEIGHT / 2), (left, target.y + HEIGHT / 2)
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": ARROWS[kind], "linewidth": 1.5,
                                              "shrinkA": 1, "shrinkB": 1})
