"""What tasks on images of any size share, each a file: windows of them train, predictions go into a folder."""

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
from unet.tasks.task import Judged, Outputs, Page, channels_first, number_type, numbered
from utils import OverlapTile, UserError, require_space

SPARE = 10_000_000  # bytes of disk beside what is written, for what is kept until an image is whole
HOLDOUT_SHARE = 0.1  # of the images of each modality, at least one where there are two


class ImageFiles:
    """Put before `Task`, or before a task on slices, it answers what has to do with windows and files.

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
        """A seeded tenth of each modality, or the images that `holdout` names: beginnings that fit one alone will do.

        Nothing tells which images are of one experiment, so like images may stand on both sides.
        """
        if holdout is None:
            return _tenth_of_each(layout.groups, seed)
        chosen: set[int] = set()
        for word in [] if holdout.strip().lower() == "none" else map(str.strip, holdout.split(",")):
            fits = [number for number, name in enumerate(layout.names) if word and name.startswith(word)]
            exact = [number for number in fits if layout.names[number] == word]
            if len(exact or fits) != 1:
                raise UserError(f"--holdout: '{word}' is the beginning of {len(fits)} labelled images' names, expected "
                                f"one; write names like {layout.names[0]}, with commas between them, or none")
            chosen.update(exact or fits)
        if len(chosen) == len(layout):
            raise UserError(f"--holdout holds out all {len(layout)} labelled images; leave some to train on")
        return sorted(chosen)

    def folds(self, layout: Layout, count: int, seed: int) -> list[list[int]]:
        """Images of each modality are dealt out in a seeded order: like ones judge and train in every fold."""
        order = [number for members in _shuffled(layout.groups, seed) for number in members]
        return [sorted(order[fold::count]) for fold in range(count)]

    def page_shape(self, samples: Sequence[Sample]) -> tuple[int, ...]:
        return self.side, self.side, 3

    def _corners(self, shape: tuple[int, int]) -> list[tuple[int, int]]:
        """Upper left corners (y, x) of the windows that cover an image of this shape."""
        return OverlapTile(shape, self.side).inside()

    def _whole(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """What windows are cut of: image (H, W, 3) and label (H, W)."""
        return sample.image, self.label(sample.label)

    def pages(self, sample: Sample) -> Iterator[Page]:
        """Windows that cover the image evenly; beyond a small one its mirror image."""
        image, label = self._whole(sample)
        cut = OverlapTile(image.shape[:2], self.side)
        for corner in self._corners(image.shape[:2]):
            yield cut.cut_at(image, [corner])[0], cut.cut_at(label, [corner])[0], {"corner": list(corner)}

    def window(self, sample: Sample, rng: np.random.Generator) -> Page:
        """A window anywhere in the image; around it, mirrored beyond the image, what turning it may look at."""
        image, label = self._whole(sample)
        rooms = [size - self.side for size in image.shape[:2]]
        corner = [int(rng.integers(room + 1)) if room > 0 else room // 2 for room in rooms]  # a small one in the middle
        turned = self.side * (2**0.5 / self.options.zoom[0] - 1) / 2 + 3 * self.options.elastic_alpha[1]
        cut = OverlapTile(image.shape[:2], self.side, int(np.ceil(turned)))
        around = [(corner[0] - cut.margin, corner[1] - cut.margin)]
        return cut.cut_at(image, around)[0], cut.cut_at(label, around)[0], {"corner": corner}

    def page_count(self, shape: tuple[int, int]) -> int:
        return len(self._corners(shape))

    def copies(self, sizes: Sequence[tuple[int, int]], groups: Sequence[str], copies: float) -> list[int]:
        """Rare modalities more often, by the square root of their number of images, yet not endlessly.

        Within a modality an image by the square root of the number of its windows. One of each at least, unless
        `copies` is less.
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

    def inputs(self, path: Path) -> Samples:
        return images_of(path)

    def outputs(self, out: Path | None, objects: Path | None = None, redrawn: Path | None = None) -> Outputs:
        """One folder for probabilities and numbered objects."""
        if objects or redrawn:
            raise UserError("--cells and --walls are for stacks of cells; of images each has files of its own in the "
                            "folder --out, leave them out")
        out = out or self.default_out
        return Outputs(out, out if self.numbers_objects else None)

    def files(self, outputs: Outputs, names: Sequence[str]) -> list[Path]:
        ends = (".tif", SUFFIX) if self.numbers_objects else (".tif",)
        return [outputs.out / f"{name}{end}" for name in names for end in ends]

    def check_outputs(self, outputs: Outputs, samples: Samples) -> None:
        samples.check_apart(self.files(outputs, samples.names))
        out = outputs.out
        if out.name.lower().endswith(ENDINGS) and (out.suffix == ".zarr" or not out.is_dir()):
            raise UserError(f"{outputs.out}: images are predicted into a folder with files for each, not into one; "
                            f"name a folder with --out, for instance {outputs.out.with_name('prediction')}")
        if outputs.out.exists() and not outputs.out.is_dir():
            raise UserError(f"{outputs.out} is a file; predicted images go into a folder, name one with --out, for "
                            f"instance {outputs.out.with_name('prediction')}")
        for path in self.files(outputs, samples.names):
            require_ours(path)
        number = np.dtype(number_type((samples.area // max(1, len(samples)), 1))).itemsize if outputs.objects else 0
        there = sum(path.stat().st_size for path in self.files(outputs, samples.names) if path.is_file())
        needed = samples.area * (np.dtype(np.float32).itemsize * self.classes + number)
        require_space(outputs.out, max(needed - there, 0) + SPARE)

    @contextmanager
    def writer(self, outputs: Outputs, samples: Samples) -> Iterator[Callable[[Judged], None]]:
        """<name>.tif, float32, a channel a class, and <name>-labels.tif, uint16 or 32; at the image's own size."""
        def write(judged: Judged) -> None:
            arrays = [channels_first(judged.probability)]
            arrays += [numbered(judged, outputs.out)] if outputs.objects else []
            types = (np.float32, number_type(judged.objects.shape))
            for path, array, dtype in zip(self.files(outputs, [judged.sample.name]), arrays, types, strict=False):
                require_ours(path)  # of a held-out image it was not asked before
                with stack_writer(path, (1, *array.shape), dtype, channels=array.ndim == 3,
                                  voxel=judged.sample.voxel) as append:
                    append(array)

        yield write

    def read(self, outputs: Outputs, samples: Samples, number: int) -> np.ndarray | None:
        path, size = outputs.out / f"{samples[number].name}.tif", samples[number].image.shape[:2]
        try:
            page = open_stack(path, [self.classes, *size])
        except (FileNotFoundError, ValueError):  # not there, or of another image
            return None
        return np.moveaxis(page, 0, -1) if self.classes > 1 else page[0]

    def holdout_outputs(self, work: Path, outputs: Outputs) -> Outputs:
        """Beside the images without masks: all that was never trained on."""
        return outputs

    def remove_stale(self, outputs: Outputs, names: Sequence[str]) -> int:
        """Those that train now would be scored as if they had been held out."""
        count = 0
        for name in names:
            ours = [path for path in self.files(outputs, [name]) if is_ours(path)]  # others may be anybody's
            for path in ours:
                path.unlink()
            count += bool(ours)
        return count


def _tenth_of_each(groups: Sequence[str], seed: int) -> list[int]:
    """Numbers of a seeded tenth of each group, sorted."""
    chosen: set[int] = set()
    for members in _shuffled(groups, seed):
        chosen.update(members[:max(round(HOLDOUT_SHARE * len(members)), int(len(members) > 1))])
    return sorted(chosen)


def _shuffled(groups: Sequence[str], seed: int) -> Iterator[list[int]]:
    """Numbers of the images of each group, in a seeded order."""
    for place, modality in enumerate(MODALITIES):
        members = [number for number, group in enumerate(groups) if group == modality]
        yield [members[at] for at in np.random.default_rng((seed, place)).permutation(len(members))]
