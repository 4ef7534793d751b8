"""What cells and classes share: grey slices of equal size, augmented and predicted whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np

from unet.inputs.layouts import Layout, StackSamples
from unet.inputs.ome_zarr import Stack
from unet.inputs.samples import Sample, Samples
from unet.inputs.stacks import padding, parse_slices
from unet.inputs.writers import check_writable, page_writer, read_page
from unet.tasks.task import Outputs, Page, Prediction, Task, channels_first, checked_objects, number_type
from utils import UserError

HOLDOUT = 5  # held-out slices at the end of the stack, not used for training: 25-29 of ISBI's 30
CLIPPED = (0.1, 99.9)  # percentiles to which pixels of more than 8 bits are clipped: hot pixels change nothing


class SliceTask(Task):
    """A task on grey slices, all of one size."""

    layouts: ClassVar = ("stacks",)

    def split(self, layout: Layout, holdout: str | None, seed: int) -> list[int]:
        """Return the slices that `holdout` lists ('25-29', 'none'); without it the last 5, fewer in short stacks."""
        count = len(layout)
        if holdout is None:
            return list(range(count - min(HOLDOUT, max(count // 6, int(count > 1))), count))
        numbers = parse_slices(holdout, count)
        if len(numbers) == count:
            raise UserError(f"--holdout {holdout} holds out all {count} slices; leave some to train on")
        return numbers

    def folds(self, layout: Layout, count: int, seed: int) -> list[list[int]]:
        """Return blocks of neighbouring slices, as these resemble each other."""
        return [block.tolist() for block in np.array_split(np.arange(len(layout)), count)]

    def page_shape(self, samples: Sequence[Sample]) -> tuple[int, ...]:
        return samples[0].image.shape

    def pages(self, sample: Sample) -> Iterator[Page]:
        yield sample.image, self.label(sample.label), {}

    def window(self, sample: Sample, rng: np.random.Generator) -> Page:
        return sample.image, self.label(sample.label), {}

    def levels(self, image: np.ndarray) -> dict:
        """Return mean and standard deviation of the pixels that are not padding, in the image's own grey levels."""
        inside = image[~padding(image)]
        pixels = inside if np.ptp(inside) else image.ravel()  # two values are a picture, not padding
        if image.dtype != np.uint8:
            pixels = np.clip(pixels, *np.percentile(pixels, CLIPPED))
        sd = float(pixels.std(dtype=np.float64)) if np.ptp(pixels) else 0.0
        return {"mean": float(pixels.mean(dtype=np.float64)), "sd": sd}

    def grey_level(self, levels: dict) -> float:
        return levels["sd"] / self.normalisation["sd"]

    def normalise(self, image: np.ndarray, levels: dict) -> np.ndarray:
        """Bring the image to the mean and deviation of `normalisation`; uint8, clipped.

        This removes linear differences in a microscope's brightness and contrast. An image of one grey level becomes
        the mean everywhere.
        """
        scale = self.normalisation["sd"] / levels["sd"] if levels["sd"] else 0.0
        grey = (image.astype(np.float32) - np.float32(levels["mean"])) * np.float32(scale)
        return np.clip(np.rint(grey + np.float32(self.normalisation["mean"])), 0, 255).astype(np.uint8)

    def portable(self) -> tuple[list[tuple[str, dict]], str]:
        mean, sd = self.normalisation["mean"], self.normalisation["sd"]
        return ([("zero_mean_unit_variance", {}), ("scale_linear", {"gain": sd, "offset": mean + 0.5}),
                 ("clip", {"min": 0.0, "max": 255.5}), ("ensure_dtype", {"dtype": "uint8"})],
                "Grey images of 8 bits without black padding; in others, remove hot pixels and padding first.")

    def inputs(self, path: Path) -> Samples:
        return StackSamples(path, "name the stack to segment")

    def files(self, outputs: Outputs, names: Sequence[str]) -> list[Path]:
        return [path for path in (outputs.out, outputs.objects, outputs.redrawn) if path]

    def stacks(self, outputs: Outputs, samples: Samples) -> dict[Path, Stack]:
        """Return what is written where: float32 probabilities, a channel per class if several; uint16 or 32 objects."""
        count, size = len(samples), samples[0].image.shape
        several = self.classes > 1
        names = [f"class {number}" for number in range(self.classes)] if several else [self.output]
        probability = Stack((count, self.classes, *size) if several else (count, *size), np.float32, samples.voxel,
                            samples.names, names)
        objects = Stack((count, *size), number_type(size), samples.voxel, samples.names, ["objects"])
        places = {outputs.out: probability, outputs.objects: objects, outputs.redrawn: probability}
        return {path: stack for path, stack in places.items() if path}

    def check_outputs(self, outputs: Outputs, samples: Samples) -> None:
        samples.check_apart(self.files(outputs, samples.names))
        for path, stack in self.stacks(outputs, samples).items():
            check_writable(path, stack)

    @contextmanager
    def writer(self, outputs: Outputs, samples: Samples) -> Iterator[Callable[[Prediction], None]]:
        """Write stacks with a page per slice, in the formats of their names."""
        with ExitStack() as files:
            write_to = {path: files.enter_context(page_writer(path, stack))
                        for path, stack in self.stacks(outputs, samples).items()}

            def write(prediction: Prediction) -> None:
                write_to[outputs.out](channels_first(prediction.probability))
                if outputs.objects:
                    write_to[outputs.objects](checked_objects(prediction, outputs.objects))
                if outputs.redrawn:
                    write_to[outputs.redrawn](channels_first(prediction.redrawn))

            yield write

    def read(self, outputs: Outputs, samples: Samples, number: int) -> np.ndarray | None:
        page = read_page(outputs.out, self.stacks(outputs, samples)[outputs.out], number)
        return np.moveaxis(page, 0, -1) if page is not None and self.classes > 1 else page
