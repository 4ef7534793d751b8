"""What tasks on images of any size share: each image is a file, windows train, predictions go into a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np

from unet.inputs.folders import MODALITIES
from unet.inputs.layouts import Layout, images_of
from unet.inputs.samples import Sample, Samples
from unet.inputs.stacks import is_ours, open_stack, require_ours, stack_writer
from unet.inputs.writers import ENDINGS
from unet.scores.precision import SUFFIX
from unet.tasks.task import Outputs, Page, Prediction, channels_first, checked_objects, number_type
from utils import OverlapTile, UserError, require_space

SPARE = 10_000_000  # bytes of disk besides the predictions, for temporary files of an image
HOLDOUT_SHARE = 0.1  # of the images of each modality, at least one if there are two


class ImageFiles:
    """Mixin for `Task`, or for a task on slices: all that has to do with windows and files.

    The class has a field `window_side`, the side of the windows that are cut, pixels.
    """

    default_out: ClassVar = Path("prediction")
    windowed: ClassVar = True
    channels: ClassVar = 3

    @property
    def side(self) -> int:
        """Side of a page, pixels."""
        return self.window_side

    def split(self, layout: Layout, holdout: str | None, seed: int) -> list[int]:
        """Return a seeded tenth of each modality, or the images that `holdout` names; unique beginnings will do.

        Nothing tells which images are from one experiment, so similar images may train and be held out.
        """
        if holdout is None:
            return sorted(number for members in _shuffled(layout.groups, seed)
                          for number in members[:max(round(HOLDOUT_SHARE * len(members)), int(len(members) > 1))])
        numbers: set[int] = set()
        for word in [] if holdout.strip().lower() == "none" else map(str.strip, holdout.split(",")):
            matches = [number for number, name in enumerate(layout.names) if word and name.startswith(word)]
            exact = [number for number in matches if layout.names[number] == word]
            if len(exact or matches) != 1:
                raise UserError(f"--holdout: '{word}' is the beginning of {len(matches)} labelled images' names, "
                                f"expected one; write names like {layout.names[0]}, with commas between them, or none")
            numbers.update(exact or matches)
        if len(numbers) == len(layout):
            raise UserError(f"--holdout holds out all {len(layout)} labelled images; leave some to train on")
        return sorted(numbers)

    def folds(self, layout: Layout, count: int, seed: int) -> list[list[int]]:
        """Deal out the images of each modality in a seeded order: each fold trains and is scored on similar ones."""
        order = [number for members in _shuffled(layout.groups, seed) for number in members]
        return [sorted(order[fold::count]) for fold in range(count)]

    def page_shape(self, samples: Sequence[Sample]) -> tuple[int, ...]:
        return self.side, self.side, 3

    def _corners(self, shape: tuple[int, int]) -> list[tuple[int, int]]:
        """List the upper left corners (y, x) of the windows that cover an image of this shape."""
        return OverlapTile(shape, self.side).inside()

    def _whole(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Return what windows are cut from: image (H, W, 3) and label (H, W)."""
        return sample.image, self.label(sample.label)

    def pages(self, sample: Sample) -> Iterator[Page]:
        """Iterate over windows that cover the image evenly; an image smaller than a window is mirrored at its edges."""
        image, label = self._whole(sample)
        tiles = OverlapTile(image.shape[:2], self.side)
        for corner in self._corners(image.shape[:2]):
            yield tiles.cut_at(image, [corner])[0], tiles.cut_at(label, [corner])[0], {"corner": list(corner)}

    def window(self, sample: Sample, rng: np.random.Generator) -> Page:
        """Return a random window with the context that turning it needs, mirrored at the image's edges."""
        image, label = self._whole(sample)
        spaces = [size - self.side for size in image.shape[:2]]
        corner = [int(rng.integers(space + 1)) if space > 0 else space // 2 for space in spaces]  # or in the middle
        context = self.side * (2**0.5 / self.options.zoom[0] - 1) / 2 + 3 * self.options.elastic_alpha[1]
        tiles = OverlapTile(image.shape[:2], self.side, int(np.ceil(context)))
        outer = [(corner[0] - tiles.margin, corner[1] - tiles.margin)]
        return tiles.cut_at(image, outer)[0], tiles.cut_at(label, outer)[0], {"corner": corner}

    def page_count(self, shape: tuple[int, int]) -> int:
        return len(self._corners(shape))

    def copies(self, sizes: Sequence[tuple[int, int]], groups: Sequence[str], copies: float) -> list[int]:
        """Return the number of copies of each image: images of rare modalities get more, but not without limit.

        A modality gets copies in proportion to the square root of its number of images; within it, an image in
        proportion to the square root of the number of its windows. Each image gets one at least, unless `copies` is
        less.
        """
        roots = [self.page_count(size) ** 0.5 for size in sizes]
        images, windows = Counter(groups), Counter()
        for group, root in zip(groups, roots, strict=True):
            windows[group] += root
        total = copies * len(sizes) / sum(count**0.5 for count in images.values())
        shares = [total * images[group] ** 0.5 * root / windows[group]
                  for group, root in zip(groups, roots, strict=True)]
        if copies < 1:
            return np.diff(np.floor(np.cumsum([0.0, *shares]) + 1e-6).astype(int)).tolist()
        return [max(1, round(share)) if share else 0 for share in shares]

    def default_tile(self, page: Sequence[int]) -> tuple[int, int]:
        """Return the whole window: it was cut to be a tile."""
        return page[0], 0

    def check_tile(self, side: int, page: Sequence[int]) -> None:
        if side > page[0]:
            raise UserError(f"tiles of {side} pixels do not fit the windows of {page[0]} that step 1 cut; run 'python "
                            f"augmentation.py --window {side}' first, or choose a smaller --tile")

    def inputs(self, path: Path) -> Samples:
        return images_of(path)

    def outputs(self, out: Path | None, objects: Path | None = None, redrawn: Path | None = None) -> Outputs:
        """Return one folder for probabilities and numbered objects."""
        if objects or redrawn:
            raise UserError("--cells and --walls are for stacks of cells; leave them out, as each image has files of "
                            "its own in the folder --out")
        out = out or self.default_out
        return Outputs(out, out if self.numbers_objects else None)

    def files(self, outputs: Outputs, names: Sequence[str]) -> list[Path]:
        ends = (".tif", SUFFIX) if self.numbers_objects else (".tif",)
        return [outputs.out / f"{name}{end}" for name in names for end in ends]

    def check_outputs(self, outputs: Outputs, samples: Samples) -> None:
        out, files = outputs.out, self.files(outputs, samples.names)
        samples.check_apart(files)
        if out.name.lower().endswith(ENDINGS) and (out.suffix == ".zarr" or not out.is_dir()):
            raise UserError(f"{out}: predictions of images go into a folder with files for each, not into one file; "
                            f"name a folder with --out, for instance {out.with_name('prediction')}")
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file; predictions of images go into a folder, name one with --out, for "
                            f"instance {out.with_name('prediction')}")
        for path in files:
            require_ours(path)
        number_bytes = (np.dtype(number_type((samples.area // max(1, len(samples)), 1))).itemsize if outputs.objects
                        else 0)
        present = sum(path.stat().st_size for path in files if path.is_file())
        needed = samples.area * (np.dtype(np.float32).itemsize * self.classes + number_bytes)
        require_space(out, max(needed - present, 0) + SPARE)

    @contextmanager
    def writer(self, outputs: Outputs, samples: Samples) -> Iterator[Callable[[Prediction], None]]:
        """Write <name>.tif, float32, a channel per class, and <name>-labels.tif, uint16 or 32, in the image's size."""
        def write(prediction: Prediction) -> None:
            arrays = [channels_first(prediction.probability)]
            arrays += [checked_objects(prediction, outputs.out)] if outputs.objects else []
            types = (np.float32, number_type(prediction.objects.shape))
            for path, array, dtype in zip(self.files(outputs, [prediction.sample.name]), arrays, types, strict=False):
                require_ours(path)  # not yet checked for held-out images
                with stack_writer(path, (1, *array.shape), dtype, channels=array.ndim == 3,
                                  voxel=prediction.sample.voxel) as append:
                    append(array)

        yield write

    def read(self, outputs: Outputs, samples: Samples, number: int) -> np.ndarray | None:
        path, size = outputs.out / f"{samples[number].name}.tif", samples[number].image.shape[:2]
        try:
            page = open_stack(path, [self.classes, *size])
        except (FileNotFoundError, ValueError):  # missing, or of another image
            return None
        return np.moveaxis(page, 0, -1) if self.classes > 1 else page[0]

    def holdout_outputs(self, work: Path, outputs: Outputs) -> Outputs:
        """Return the folder of the other predictions: it has those of all images that never trained."""
        return outputs

    def remove_stale(self, outputs: Outputs, names: Sequence[str]) -> int:
        """Remove predictions of images that train now: they would be scored as if they had been held out."""
        count = 0
        for name in names:
            files = [path for path in self.files(outputs, [name]) if is_ours(path)]  # not other programs'
            for path in files:
                path.unlink()
            count += bool(files)
        return count


def _shuffled(groups: Sequence[str], seed: int) -> Iterator[list[int]]:
    """Iterate over the numbers of the images of each group, in a seeded order."""
    for place, modality in enumerate(MODALITIES):
        members = [number for number, group in enumerate(groups) if group == modality]
        yield [members[at] for at in np.random.default_rng((seed, place)).permutation(len(members))]
