"""A trained network as a function of an image of any size: tiles, flips, magnifications, and the memory there is."""

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
from unet.engines.windows import CORE, Windows, filled, overlap_tiles
from unet.network import Network
from unet.predicting.ahead import Item, ahead
from unet.tasks import task_of
from unet.tasks.task import Task
from unet.training.device import ran_out_of_memory
from utils import turned

MANY = 8  # batches of an image, from which on they are predicted ahead, several at once
SHARE = 0.5  # of the memory that is free, which a batch may take


@dataclass
class Limits:
    """What is predicted at once; less after memory ran out."""

    core: int = CORE
    pixels: int = BATCH  # of a batch: flips of one tile


@dataclass(frozen=True)
class Predictor:
    """A trained network as a function: an image (H, W[, C]) of any size -> probability float32 (H, W[, classes])."""

    engine: Engine
    network: Network
    task: Task
    flips: int = 1  # of the square's eight symmetries, whose predictions are averaged
    zooms: Sequence[float] = (1.0,)  # magnifications whose predictions are averaged, too
    limits: Limits = field(default_factory=Limits, compare=False)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Predict a whole image: normalised by itself, as those that trained were."""
        return self._classes(self._whole(image))

    def with_spread(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Predict as a call does; gives with it how far flips and magnifications disagree, None where there is one.

        That is their standard deviation, float32 (H, W), 0 to .5; of several classes the greatest. Sums and sums of
        squares are kept, not the flips.
        """
        if self.flips == len(self.zooms) == 1:
            return self(image), None
        mean, squares = np.split(self._whole(image, squares=True), 2, axis=-1)
        spread = np.sqrt(np.maximum(squares - mean**2, 0)).max(axis=-1)  # what is alike differs by rounding
        return self._classes(np.ascontiguousarray(mean)), spread

    def _whole(self, image: np.ndarray, squares: bool = False) -> np.ndarray:
        """Means over flips and magnifications; see `_averaged`."""
        normalised = self.task.normalise(image, self.task.levels(image))
        total = sum(self._magnified(normalised, zoom, squares) for zoom in self.zooms) / len(self.zooms)
        return total if total.shape[:2] == image.shape[:2] else _resized(total, image.shape[:2])

    def _magnified(self, normalised: np.ndarray, zoom: float, squares: bool) -> np.ndarray:
        if zoom == 1:
            return self._tiled(normalised, squares=squares)
        shape = normalised.shape[:2]
        size = [max(1, round(side * zoom)) for side in shape]
        larger = np.clip(np.rint(resize(normalised, size, order=1, preserve_range=True)), 0, 255)
        return _resized(self._tiled(larger.astype(np.uint8), squares=squares), shape)

    def predict(self, normalised: np.ndarray, core: int | None = None, margin: int | None = None) -> np.ndarray:
        """Predict what the network sees, uint8 (H, W[, C]), in each flip; the mean is given.

        Overlap tiles are predicted and their cores stitched; the default margin covers the network's receptive field,
        so no seam is left. Where memory runs out, tiles of half the side are tried, then and afterwards. Raises
        MemoryError where the smallest are too large.
        """
        return self._classes(self._tiled(normalised, core, margin))

    def rows(self, image: np.ndarray, levels: dict, first: int, last: int) -> np.ndarray:
        """Predict rows `first` to `last` - 1 of an image too large to be predicted whole; float32 (rows, W[, classes]).

        The image is cut as it is, and normalised and turned tile by tile: beside its own pixels a few tiles are in
        memory. Rows are the same whichever others are predicted with them where `first` is a multiple of the network's
        stride. Raises as `predict`.
        """
        return self.block(image, levels, (first, 0), (last - first, image.shape[1]))

    def block(self, image: np.ndarray, levels: dict, corner: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """Predict the part of an image whose upper left pixel is at `corner` (y, x), as `rows`; float32 `shape`.

        The image may be cut out of a larger one, at a multiple of the network's stride and with its margin.
        """
        return self._classes(self._bounded(shape, None, lambda core: self._block(image, levels, corner, shape, core)))

    @property
    def members(self) -> Sequence[Predictor]:
        """The trained networks that predict, as `Ensemble` has several."""
        return (self,)

    @property
    def at_once(self) -> int:
        """How many images are predicted best at the same time, in threads."""
        return getattr(self.engine, "streams", 1)

    @property
    def by_rows(self) -> bool:
        """Whether `rows` gives what a call gives."""
        # where a valid network pools depends on the image's corner, which is another one in each flip
        return self.task.by_rows and self.zooms == (1.0,) and (self.network.padding == "same" or self.flips == 1)

    def row_step(self, shape: tuple[int, int]) -> int:
        """How many rows of an image of `shape` are predicted best at once: those of a row of tiles."""
        return overlap_tiles(self.network, shape, self.limits.core).cores[0]

    def _classes(self, total: np.ndarray) -> np.ndarray:
        """A probability (H, W, classes) as it is given: (H, W) of one class."""
        return total if self.network.classes > 1 else total[..., 0]

    def _tiled(self, normalised: np.ndarray, core: int | None = None, margin: int | None = None, squares: bool = False
               ) -> np.ndarray:
        return self._bounded(normalised.shape[:2], core, lambda core: self._averaged(normalised, core, margin, squares))

    def _bounded(self, shape: tuple[int, int], core: int | None, call: Callable[[int], np.ndarray]) -> np.ndarray:
        """Call with the core that the limits allow, then with half of it, and so on, while memory runs out."""
        core = core or self.limits.core
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
            one = math.prod(overlap_tiles(self.network, shape, core).sides)
            self.limits.core, self.limits.pixels = core, min(self.limits.pixels // 4, one)  # a tile at a time from now
            tqdm.write(f"note: memory ran out; going on with tiles of {core} pixels and their margins")

    def _block(self, image: np.ndarray, levels: dict, corner: tuple[int, int], shape: tuple[int, int], core: int
               ) -> np.ndarray:
        high, wide = overlap_tiles(self.network, shape, core).cores
        tiles = replace(overlap_tiles(self.network, image.shape[:2], core), core=(high, wide))
        total, (top, left) = np.zeros((*shape, self.network.classes), np.float32), corner
        corners = [(y, x) for y in range(0, shape[0], high) for x in range(0, shape[1], wide)]
        together = max(1, self.limits.pixels // math.prod(tiles.sides) // self.flips)

        def means(some: Sequence[tuple[int, int]]) -> list[np.ndarray]:
            cut = (tiles.tile_at(image, (top + y, left + x)) for y, x in some)
            return self._turned_tiles([self.task.normalise(tile, levels) for tile in cut])

        groups = [corners[place:place + together] for place in range(0, len(corners), together)]
        for some, predicted in zip(groups, self._ahead([partial(means, some) for some in groups]), strict=True):
            for (y, x), mean in zip(some, predicted, strict=True):
                part = total[y:y + high, x:x + wide]
                part[:] = tiles.core_of(mean, (top + y, left + x))[:part.shape[0], :part.shape[1]]
        return total

    def _turned_tiles(self, tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Mean of the predictions of all flips of each tile (h, w[, C]), turned back; float32 (h', w', classes)."""
        turns = [(place, number, turned(tile if tile.ndim == 3 else tile[..., np.newaxis], number))
                 for place, tile in enumerate(tiles) for number in range(self.flips)]
        totals: dict[int, np.ndarray] = {}
        for shape in dict.fromkeys(turn.shape for _, _, turn in turns):
            for batch in self._batches([turn for turn in turns if turn[2].shape == shape], shape):
                probability = self.engine(np.stack([turn for _, _, turn in batch]))
                lost = shape[0] - probability.shape[1]  # of a valid network
                for (place, number, _), one in zip(batch, probability, strict=True):
                    if place not in totals:
                        height, width = tiles[place].shape[:2]
                        totals[place] = np.zeros((height - lost, width - lost, one.shape[2]), np.float32)
                    _add(one, turned(totals[place], number))
        return [totals[place] / self.flips for place in range(len(tiles))]

    def _batches(self, things: Sequence, shape: Sequence[int]) -> Iterator[Sequence]:
        """Tiles of a shape (h, w) that are predicted in one call, as many as the limits allow."""
        size = max(1, self.limits.pixels // math.prod(shape[:2]))
        for first in range(0, len(things), size):
            yield things[first:first + size]

    def _averaged(self, normalised: np.ndarray, core: int, margin: int | None, squares: bool) -> np.ndarray:
        """Means over the flips of the probability and, as further channels, of its `squares`; float32 (H, W, channels).

        All flips of a tile are predicted together, those of one shape at once.
        """
        shape = normalised.shape[:2]
        image = filled(normalised if normalised.ndim == 3 else normalised[..., np.newaxis], self.network)
        total = np.zeros((*image.shape[:2], (2 if squares else 1) * self.network.classes), np.float32)
        images = [turned(image, number) for number in range(self.flips)]
        sums = [turned(total, number) for number in range(self.flips)]  # views: what is added there is turned back
        work = []
        for turn in dict.fromkeys(one.shape[:2] for one in images):
            numbers = [number for number, one in enumerate(images) if one.shape[:2] == turn]
            tiles = overlap_tiles(self.network, turn, core, margin)
            by_size: dict[tuple[int, int], list] = {}
            for corner in tiles.corners():
                by_size.setdefault(tiles.window(corner)[1], []).extend((corner, one) for one in numbers)
            work += [(tiles, batch) for size, turns in by_size.items() for batch in self._batches(turns, size)]
        predicted = self._ahead([partial(self._predicted, images, tiles, batch) for tiles, batch in work])
        for (tiles, batch), probability in zip(work, predicted, strict=True):
            for ((y, x), one), tile in zip(batch, probability, strict=True):
                part = tiles.core_of(tile, (y, x))
                there = sums[one][y:y + part.shape[0], x:x + part.shape[1]]
                _add(np.concatenate([part, part**2], axis=-1) if squares else part, there)
        total /= self.flips
        return total[:shape[0], :shape[1]]

    def _predicted(self, images: Sequence[np.ndarray], tiles: Windows, batch: Sequence[tuple[tuple[int, int], int]]
                   ) -> np.ndarray:
        """What the network says of a batch of tiles, each known by its corner and the number of its image."""
        return self.engine(np.stack([tiles.tile_at(images[one], corner) for corner, one in batch]))

    def _ahead(self, jobs: Sequence[Callable[[], Item]]) -> Iterator[Item]:
        """What the jobs give, in order; of many, the next are done while the caller adds up what it took."""
        if self.at_once == 1 or len(jobs) < MANY:
            return (job() for job in jobs)
        return ahead(jobs, self.at_once, self.at_once)

    def in_words(self) -> str:
        """What is done to each image, for the console."""
        at = ", ".join(f"{zoom:g}" for zoom in self.zooms)
        zooms = f" at {at} times the size" if at != "1" else ""
        flips = f"mean of {self.flips} flips" if self.flips > 1 else "no flips"
        return flips + zooms


def _add(part: np.ndarray, to: np.ndarray) -> None:
    """Add a part (h, w, channels) to a view of a total, by whose memory pixels are walked: that is 4 times faster."""
    if abs(to.strides[0]) < abs(to.strides[1]):
        part, to = part.swapaxes(0, 1), to.swapaxes(0, 1)
    to += part


def limits_of(network: Network, batch: int = BATCH, free: int | None = None) -> Limits:
    """Limits of `batch` pixels at once or what fits `free` bytes of memory, by default what this machine has free."""
    free = psutil.virtual_memory().available if free is None else free
    pixels, core = int(SHARE * free / bytes_per_pixel(network)), CORE
    while core > 64 and (core + 2 * network.margin) ** 2 > pixels:
        core //= 2
    return Limits(core, min(batch, pixels))


def bytes_per_pixel(network: Network) -> int:
    """Memory that a network takes for a pixel of its input, roughly: what its widest places hold at once, float32."""
    if network.encoder:
        return 4 * 512
    return 4 * (4 * network.filters // (4 if network.half else 1) + 64)


def _resized(probability: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return resize(probability, shape, order=1, anti_aliasing=False).astype(np.float32)


def predictor_of(engine: Engine, config: dict, flips: int | None = None, zooms: Sequence[float] | None = None
                 ) -> Predictor:
    """The trained network with the run's own flips and magnifications, or those given."""
    recipe, network = config["recipe"], Network(**config["network"])
    return Predictor(engine, network, task_of(config), flips or recipe["flips"],
                     tuple(zooms or recipe.get("zooms", (1.0,))), limits_of(network, getattr(engine, "batch", BATCH)))
