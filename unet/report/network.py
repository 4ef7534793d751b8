"""Draw the network: its feature maps in the shape of a U, and the overlap tiles in which it predicts an image."""

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
from unet.report.colours import squeeze_grey
from unet.report.pictures import BLUE, DPI, GREEN, ORANGE, PURPLE, SKY, YELLOW, Panel, frame, grid, message
from unet.training.encoders import build

if TYPE_CHECKING:
    from unet.report.run import Run

MAP_LAYERS = ("InputLayer", "Conv2D", "Conv2DTranspose", "Concatenate")  # their outputs are drawn as feature maps
MOST_MAPS = 6  # feature maps drawn per level and side; if there are more, only the first and the last
HEIGHT = 0.62  # of a box; levels are 1 apart
ARROWS = {"convolution": BLUE, "half the size": ORANGE, "twice the size": GREEN, "copied across": PURPLE}


def draw_overlap_tiles(run: Run) -> Figure:
    """Draw how a whole image is predicted: tiles with their margins, and the probability stitched from their cores.

    An image that fits into a single tile is cut as a larger one would be.
    """
    prediction = next(iter(run.predictions(range(min(1, len(run.to_predict)))) or run.holdout_predictions), None)
    if prediction is None:
        return message("Nothing was predicted in this run yet.")
    sample, probability = prediction.sample, prediction.probability
    image = run.task.normalise(sample.image, run.task.levels(sample.image))
    network, shape = Network(**run.config["network"]), image.shape[:2]
    tiles = overlap_tiles(network, shape)
    single = len(tiles) == 1
    if single:
        tiles = overlap_tiles(network, shape, math.ceil(max(shape) / 3))
    figure, axes = grid([[Panel(squeeze_grey(image), sample.name[:20], "grey level, as the network sees it"),
                          Panel(probability.max(axis=-1) if probability.ndim == 3 else probability,
                                "stitched", run.task.output if run.task.classes == 1 else "greatest probability")]],
                        f"An image is predicted in {'' if single else f'{len(tiles)} '}overlap tiles. Each is a core "
                        "(blue) with the surroundings that the network looks at (one whole tile: yellow), as far as "
                        "the image reaches. Only the predictions of the cores are kept, so no seams are left."
                        + " This image fits into one tile; the frames show how a larger one is cut." * single, 4.2)
    for y, x in tiles.corners():
        high, wide = (min(core, size - start) for core, size, start in zip(tiles.cores, shape, (y, x), strict=True))
        frame(axes[0, 0], (y, x), (high, wide), SKY, 3)
    first, size = tiles.window(tiles.corners()[len(tiles) // 2])
    frame(axes[0, 0], first, size, YELLOW, 3, linestyle="--")
    return figure


@dataclass
class FeatureMap:
    """The output of a layer: its side in pixels, its channels, its place in the U."""

    name: str
    side: int
    channels: int
    level: int  # how many times the image's size was halved
    upward: bool  # on the right side of the U, which goes up
    sources: list[str] = field(default_factory=list)  # names of the feature maps from which it is computed


def feature_maps(model: keras.Model, tile: int) -> list[FeatureMap]:
    """Return the feature maps of a functional Keras model for inputs of `tile` pixels, in the order of computation."""
    shapes = keras.Model(model.inputs, [layer.output for layer in model.layers]).compute_output_shape(
        (1, tile, tile, model.inputs[0].shape[-1]))
    maps: dict[str, FeatureMap] = {}
    nearest: dict[str, list[str]] = {}  # for each layer, the feature maps from which its output is computed
    levels: dict[str, int] = {}
    sides: dict[str, int] = {}
    climbs: dict[str, bool] = {}
    for layer, (_, side, _, channels) in zip(model.layers, shapes, strict=True):
        parents = _parents(layer)
        low = max(parents, key=lambda name: climbs[name], default=None)  # of a concatenation, the branch from below
        step = 0 if low is None else (side < 0.6 * sides[low]) - (side > 1.7 * sides[low])
        levels[layer.name] = step + (0 if low is None else levels[low])
        sides[layer.name] = side
        climbs[layer.name] = step < 0 or any(climbs[name] for name in parents)
        sources = [name for parent in parents for name in nearest[parent]]
        nearest[layer.name] = sources
        if type(layer).__name__ in MAP_LAYERS:
            maps[layer.name] = FeatureMap(layer.name, side, channels, levels[layer.name], climbs[layer.name], sources)
            nearest[layer.name] = [layer.name]
    return list(maps.values())


def _parents(layer: keras.Layer) -> list[str]:
    """Return the names of the layers whose outputs are a layer's inputs."""
    if isinstance(layer, keras.layers.InputLayer):
        return []
    tensors = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation.name for tensor in tensors]


def draw_network(network: Network, channels: int = 1, tile: int = 256) -> Figure:
    """Draw a U-Net for input tiles of `tile` pixels: boxes are feature maps, arrows operations."""
    model = build(network, channels, {"mean": 0.0, "sd": 255.0})
    maps = _arrange(feature_maps(model, tile))
    depth, most = max(one.level for one in maps), max(one.channels for one in maps)
    figure = Figure(figsize=(12, 1.15 * depth + 2.2), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    boxes = {}
    for column, one in enumerate(maps):
        boxes[one.name] = box = Box(column, -one.level, 0.12 + 0.4 * one.channels / most)
        box.draw(axis, one, len(one.sources) > 1)
    for one in maps:
        for source in one.sources:
            _arrow(axis, boxes[source], boxes[one.name], len(one.sources) > 1)
    axis.set(xlim=(-0.8, len(maps) - 0.2), ylim=(-depth - 0.35, HEIGHT + 0.3))
    axis.axis("off")
    for meaning, colour in ARROWS.items():
        axis.plot([], [], color=colour, linewidth=2, label=meaning)
    axis.legend(loc="lower left", fontsize=9, frameon=False)
    figure.supxlabel(f"The network, {model.count_params():,} parameters. The number of channels is above each feature "
                     f"map, its height and width in pixels below it, for a tile of {tile} pixels.\nThe left half looks "
                     "at ever larger surroundings; the right half brings the result back to single pixels, with the "
                     "help of the copies (purple).", x=0.01, ha="left", fontsize=10)
    return figure


def _arrange(maps: list[FeatureMap]) -> list[FeatureMap]:
    """Order maps from left to right, down, then up; leave out parts of concatenations and the middle of long rows."""
    groups: dict[tuple[int, bool], list[FeatureMap]] = {}
    for one in maps:
        groups.setdefault((one.level, one.upward), []).append(one)
    joins = [one for one in maps if len(one.sources) > 1]
    parts = {source for one in joins for source in one.sources}
    stand_ins: dict[str, str] = {}  # for each map that is left out, the one from which it comes
    visible = []
    for one in maps:
        group = groups[one.level, one.upward]
        inner = one not in (group[0], group[-1]) and one.name not in parts and one not in joins
        # a map from below is drawn as a part of the concatenation
        if (one.name in parts and one.upward) or (inner and len(group) > MOST_MAPS):
            stand_ins[one.name] = stand_ins.get(one.sources[0], one.sources[0])
        else:
            one.sources = [stand_ins.get(source, source) for source in one.sources]
            visible.append(one)
    return sorted(visible, key=lambda one: (one.upward, 0 if one.upward else one.level))  # a stable sort


@dataclass
class Box:
    """The place of a feature map in the picture."""

    x: float  # of its middle
    y: float  # of its lower edge
    width: float

    def draw(self, axis: Axes, feature_map: FeatureMap, is_join: bool) -> None:
        """Draw the box and its sizes; the half of a concatenation that was copied across is purple."""
        left = self.x - self.width / 2
        axis.add_patch(Rectangle((left, self.y), self.width, HEIGHT, facecolor="#e8f1f8", edgecolor="black"))
        if is_join:
            axis.add_patch(Rectangle((left, self.y), self.width / 2, HEIGHT, facecolor=PURPLE, edgecolor="black"))
        axis.text(self.x, self.y + HEIGHT + 0.03, f"{feature_map.channels}", ha="center", va="bottom", fontsize=9)
        axis.text(self.x, self.y - 0.04, f"{feature_map.side}²", ha="center", va="top", fontsize=8,
                  color="#444444")


def _arrow(axis: Axes, source: Box, target: Box, to_join: bool) -> None:
    """Draw an arrow from one feature map to another, in the colour of the operation."""
    operation = "half the size" if target.y < source.y else "twice the size" if target.y > source.y else \
        "copied across" if to_join else "convolution"
    right, left = source.x + source.width / 2, target.x - target.width / 2
    if target.y < source.y:  # from below the text with the size
        start, end = (source.x, source.y - 0.2), (left, target.y + HEIGHT / 2)
    elif target.y > source.y:  # from above the channels, and below the arrow of the copy
        start, end = (source.x, source.y + HEIGHT + 0.18), (left, target.y + HEIGHT / 4)
    else:
        start, end = (right, source.y + HEIGHT / 2), (left, target.y + HEIGHT / 2)
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": ARROWS[operation], "linewidth": 1.5,
                                              "shrinkA": 1, "shrinkB": 1})
