"""A trained network as a function of an image of any size: tiles, flips and magnifications, within the free memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import psutil
from skimage.transform import resize
from tqdm import tqdm

from unet.engines.engines import BATCH, Engine
from unet.engines.windows import CORE_SIDE, Windows, fill_to_stride, overlap_tiles
from unet.network import Network
from unet.predicting.prefetch import Item, prefetch
from unet.tasks import task_of
from unet.tasks.task import Task
from unet.training.device import ran_out_of_memory
from utils import apply_symmetry

MANY = 8  # batches per image; from this number on, several are predicted at the same time
MEMORY_SHARE = 0.5  # share of the free memory that a batch may take


@dataclass
class Limits:
    """How much is predicted at once; less after memory ran out."""

    core: int = CORE_SIDE  # side of the largest core, pixels
    pixels: int = BATCH  # in a batch of tiles


@dataclass(frozen=True)
class Predictor:
    """A trained network as a function: an image (H, W[, C]) of any size -> probability float32 (H, W[, classes])."""

    engine: Engine
    network: Network
    task: Task
    flips: int = 1  # how many of the square's eight symmetries are averaged
    zooms: Sequence[float] = (1.0,)  # magnifications that are averaged
    limits: Limits = field(default_factory=Limits, compare=False)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Predict a whole image, normalised on its own, as the training images were."""
        return self._squeeze(self._average_zooms(image))

    def with_spread(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Predict as a call does; return with the probability how far flips and magnifications disagree.

        This is their standard deviation, float32 (H, W), 0 to .5, for several classes the greatest; None if there is
        only one flip and magnification. Memory holds the sums and the sums of squares, not the flips.
        """
        if self.flips == len(self.zooms) == 1:
            return self(image), None
        mean, squares = np.split(self._average_zooms(image, squares=True), 2, axis=-1)
        spread = np.sqrt(np.maximum(squares - mean**2, 0)).max(axis=-1)  # rounding may leave it below 0
        return self._squeeze(np.ascontiguousarray(mean)), spread

    def predict(self, normalised: np.ndarray, squares: bool = False) -> np.ndarray:
        """Predict a normalised image, uint8 (H, W[, C]), in each flip; return their mean, float32 (H, W, classes).

        With `squares` the means of their squares follow, as further channels. Overlap tiles are predicted and their
        cores stitched; the margin covers the network's receptive field, so that no seam is left. If memory runs out,
        retry with tiles of half the side, and keep that size from then on. Raises MemoryError if the smallest tiles are
        too large.
        """
        return self._within_memory(normalised.shape[:2], lambda core: self._average_flips(normalised, core, squares))

    def rows(self, image: np.ndarray, levels: dict, first: int, last: int) -> np.ndarray:
        """Predict rows `first` to `last` - 1 of an image too large to be predicted whole; float32 (rows, W[, classes]).

        Tiles are cut from the raw image, then normalised and flipped batch by batch, so that memory holds only a few
        tiles besides the image. If `first` is a multiple of the network's stride, rows don't depend on which others are
        predicted with them. Raises as `predict` does.
        """
        return self.block(image, levels, (first, 0), (last - first, image.shape[1]))

    def block(self, image: np.ndarray, levels: dict, corner: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """Predict the part of an image whose upper left pixel is at `corner` (y, x), as `rows` does; float32 `shape`.

        The image may be a crop of a larger one that starts at a multiple of the network's stride and has its margin.
        """
        return self._squeeze(self._within_memory(
            shape, lambda core: self._predict_block(image, levels, corner, shape, core)))

    @property
    def members(self) -> Sequence[Predictor]:
        """The trained networks that predict: this one; an `Ensemble` has several."""
        return (self,)

    @property
    def best_threads(self) -> int:
        """The best number of images to predict at the same time, in threads."""
        return getattr(self.engine, "streams", 1)

    @property
    def by_rows(self) -> bool:
        """Whether `rows` returns the same as a call."""
        # a valid network's pooling grid starts at the image's corner, and each flip has another corner there
        return self.task.by_rows and self.zooms == (1.0,) and (self.network.padding == "same" or self.flips == 1)

    def row_step(self, shape: tuple[int, int]) -> int:
        """Return the best number of rows of an image of `shape` to predict at once: the height of a row of tiles."""
        return overlap_tiles(self.network, shape, self.limits.core).cores[0]

    def describe(self) -> str:
        """Describe for the console how each image is predicted."""
        zooms = ", ".join(f"{zoom:g}" for zoom in self.zooms)
        flips = f"mean of {self.flips} flips" if self.flips > 1 else "no flips"
        return flips + (f" at {zooms} times the size" if zooms != "1" else "")

    def _squeeze(self, total: np.ndarray) -> np.ndarray:
        """Drop the last axis of a probability (H, W, classes) if there is only one class."""
        return total if self.network.classes > 1 else total[..., 0]

    def _average_zooms(self, image: np.ndarray, squares: bool = False) -> np.ndarray:
        """Average over flips and magnifications; see `_average_flips`."""
        normalised = self.task.normalise(image, self.task.levels(image))
        total = sum(self._predict_at(zoom, normalised, squares) for zoom in self.zooms) / len(self.zooms)
        return total if total.shape[:2] == image.shape[:2] else _resize(total, image.shape[:2])

    def _predict_at(self, zoom: float, normalised: np.ndarray, squares: bool) -> np.ndarray:
        if zoom == 1:
            return self.predict(normalised, squares)
        shape = normalised.shape[:2]
        size = [max(1, round(side * zoom)) for side in shape]
        larger = np.clip(np.rint(resize(normalised, size, order=1, preserve_range=True)), 0, 255)
        return _resize(self.predict(larger.astype(np.uint8), squares), shape)

    def _within_memory(self, shape: tuple[int, int], call: Callable[[int], np.ndarray]) -> np.ndarray:
        """Call with the core that the limits allow; while memory runs out, retry with half of it."""
        core = self.limits.core
        while True:
            try:
                return call(core)
            except Exception as error:
                least = max(self.network.stride, 32)
                side = max(overlap_tiles(self.network, shape, core).cores)
                if not ran_out_of_memory(error):
                    raise
                if side <= least:
                    raise MemoryError(f"tiles of {side} pixels and their margins are too large") from error
                core = max(side // 2, least)
            tile_pixels = math.prod(overlap_tiles(self.network, shape, core).sides)
            # from now on one tile at a time
            self.limits.core, self.limits.pixels = core, min(self.limits.pixels // 4, tile_pixels)
            tqdm.write(f"note: memory ran out; going on with tiles of {core} pixels and their margins")

    def _predict_block(self, image: np.ndarray, levels: dict, corner: tuple[int, int], shape: tuple[int, int], core: int
                       ) -> np.ndarray:
        height, width = overlap_tiles(self.network, shape, core).cores
        tiles = replace(overlap_tiles(self.network, image.shape[:2], core), core=(height, width))
        total, (top, left) = np.zeros((*shape, self.network.classes), np.float32), corner
        offsets = [(y, x) for y in range(0, shape[0], height) for x in range(0, shape[1], width)]
        groups = list(self._batches(offsets, self.flips * math.prod(tiles.sides)))

        def predict(group: Sequence[tuple[int, int]]) -> list[np.ndarray]:
            parts = (tiles.tile_at(image, (top + y, left + x)) for y, x in group)
            return self._average_tiles([self.task.normalise(part, levels) for part in parts])

        for group, means in zip(groups, self._results([partial(predict, group) for group in groups]), strict=True):
            for (y, x), mean in zip(group, means, strict=True):
                part = total[y:y + height, x:x + width]
                part[:] = tiles.core_of(mean, (top + y, left + x))[:part.shape[0], :part.shape[1]]
        return total

    def _average_tiles(self, tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict each tile (h, w[, C]) in all flips, and average them, turned back; float32 (h', w', classes)."""
        turns = [(index, flip, apply_symmetry(tile if tile.ndim == 3 else tile[..., np.newaxis], flip))
                 for index, tile in enumerate(tiles) for flip in range(self.flips)]
        totals: dict[int, np.ndarray] = {}
        for shape in dict.fromkeys(tile.shape for _, _, tile in turns):
            for batch in self._batches([turn for turn in turns if turn[2].shape == shape], math.prod(shape[:2])):
                output = self.engine(np.stack([tile for _, _, tile in batch]))
                border = shape[0] - output.shape[1]  # pixels that a valid network loses
                for (index, flip, _), probability in zip(batch, output, strict=True):
                    if index not in totals:
                        height, width = tiles[index].shape[:2]
                        totals[index] = np.zeros((height - border, width - border, probability.shape[2]), np.float32)
                    _add(probability, apply_symmetry(totals[index], flip))
        return [totals[index] / self.flips for index in range(len(tiles))]

    def _batches(self, items: Sequence, pixels: int) -> Iterator[Sequence]:
        """Iterate over batches of items of so many pixels each, as large as the limits allow."""
        size = max(1, self.limits.pixels // pixels)
        for first in range(0, len(items), size):
            yield items[first:first + size]

    def _average_flips(self, normalised: np.ndarray, core: int, squares: bool) -> np.ndarray:
        """Average the probability over flips and, as further channels, its `squares`; float32 (H, W, channels).

        All flips of a tile are predicted together, those of one shape in the same batches.
        """
        shape = normalised.shape[:2]
        image = fill_to_stride(normalised if normalised.ndim == 3 else normalised[..., np.newaxis], self.network)
        total = np.zeros((*image.shape[:2], (2 if squares else 1) * self.network.classes), np.float32)
        images = [apply_symmetry(image, flip) for flip in range(self.flips)]
        sums = [apply_symmetry(total, flip) for flip in range(self.flips)]  # views: what is added there is turned back
        work = []
        for size in dict.fromkeys(image.shape[:2] for image in images):
            flips = [flip for flip, image in enumerate(images) if image.shape[:2] == size]
            tiles = overlap_tiles(self.network, size, core)
            by_size: dict[tuple[int, int], list] = {}
            for corner in tiles.corners():
                by_size.setdefault(tiles.window(corner)[1], []).extend((corner, flip) for flip in flips)
            work += [(tiles, batch) for sides, items in by_size.items()
                     for batch in self._batches(items, math.prod(sides))]

        def predict(tiles: Windows, batch: Sequence[tuple[tuple[int, int], int]]) -> np.ndarray:
            return self.engine(np.stack([tiles.tile_at(images[flip], corner) for corner, flip in batch]))

        outputs = self._results([partial(predict, tiles, batch) for tiles, batch in work])
        for (tiles, batch), output in zip(work, outputs, strict=True):
            for ((y, x), flip), probability in zip(batch, output, strict=True):
                part = tiles.core_of(probability, (y, x))
                _add(np.concatenate([part, part**2], axis=-1) if squares else part,
                     sums[flip][y:y + part.shape[0], x:x + part.shape[1]])
        total /= self.flips
        return total[:shape[0], :shape[1]]

    def _results(self, jobs: Sequence[Callable[[], Item]]) -> Iterator[Item]:
        """Iterate over the results of jobs in order; of many, run the next ones while the caller adds up the last."""
        if self.best_threads == 1 or len(jobs) < MANY:
            return (job() for job in jobs)
        return prefetch(jobs, self.best_threads, self.best_threads)


def _add(part: np.ndarray, to: np.ndarray) -> None:
    """Add a part (h, w, channels) to a view of a total, in the order of the total's memory: this is 4 times faster."""
    if abs(to.strides[0]) < abs(to.strides[1]):
        part, to = part.swapaxes(0, 1), to.swapaxes(0, 1)
    to += part


def limits_of(network: Network, batch: int = BATCH, free: int | None = None) -> Limits:
    """Return limits of `batch` pixels, or fewer if `free` bytes (default: the free memory) hold no more."""
    free = psutil.virtual_memory().available if free is None else free
    pixels, core = int(MEMORY_SHARE * free / bytes_per_pixel(network)), CORE_SIDE
    while core > 64 and (core + 2 * network.margin) ** 2 > pixels:
        core //= 2
    return Limits(core, min(batch, pixels))


def bytes_per_pixel(network: Network) -> int:
    """Estimate the bytes that a network takes for a pixel of its input: the float32 values of its widest layers."""
    if network.encoder:
        return 4 * 512
    return 4 * (4 * network.filters // (4 if network.half else 1) + 64)


def _resize(probability: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return resize(probability, shape, order=1, anti_aliasing=False).astype(np.float32)


def make_predictor(engine: Engine, config: dict, flips: int | None = None, zooms: Sequence[float] | None = None
                 ) -> Predictor:
    """Return the trained network as a predictor, with these flips and magnifications (default: those of its run)."""
    recipe, network = config["recipe"], Network(**config["network"])
    return Predictor(engine, network, task_of(config), flips or recipe["flips"],
                     tuple(zooms or recipe.get("zooms", (1.0,))), limits_of(network, getattr(engine, "batch", BATCH)))
