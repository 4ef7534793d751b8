"""How data lie on disk: a layout is a sequence of samples, each read when it is indexed."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from skimage import measure

from unet.inputs import folders, two_folders
from unet.inputs.lazy import Gray, Pages, one_channel
from unet.inputs.pages import TIFF, area_of, name_of, open_pages, size_of
from unet.inputs.samples import Sample, Samples
from unet.inputs.stacks import GET_DATA, LABELS, TEST, VOLUME, format_slices, way_to
from unet.inputs.tiffs import TiffPages, common_voxel, voxel_of
from unet.inputs.voxel import Voxel
from unet.inputs.zarrs import is_zarr
from utils import UserError, file_hash, input_hash

MOST_PIECES = 1.5  # pieces of a number, on average, in labels of objects: few objects are in pieces, most classes are


class Layout(Samples):
    """The labelled samples of a folder.

    Raises UserError, with the way out, if files are missing, cannot be read or do not fit each other.
    """

    name: ClassVar[str]
    what: ClassVar[str]  # the layout in words, for messages
    noun: ClassVar[str]  # what a sample is called
    leave_out: ClassVar[str]  # how to leave a sample out, for messages
    if_mistaken: ClassVar[str] = ""  # what to do if labels are not what they seem, for notes
    meaning: str  # what its labels seem to mean: cells or nuclei; the user may know better
    objects_share_number: bool = False  # whether separate objects have the same number
    folder: Path
    labels_path: Path  # for messages
    groups: list[str]  # the group of each sample
    notes: list[str]  # what the user should know about the data, a sentence each
    dtype: np.dtype  # holds the pixels of all images unchanged

    def name_samples(self, numbers: Sequence[int]) -> str:
        """Return the names of samples in words, for messages; at most six."""
        names = [name if len(name) <= 20 else f"{name[:12]}..." for name in map(self.names.__getitem__, numbers[:6])]
        return f"{self.noun}{'s' * (len(numbers) > 1)} {', '.join(names + ['...'] * (len(numbers) > 6))}"

    @abstractmethod
    def size(self, number: int) -> tuple[int, int]:
        """Return height and width of a sample, pixels; from its file's header, if that has them."""

    @abstractmethod
    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each input, by its absolute path."""

    @abstractmethod
    def to_predict(self) -> Samples:
        """Return the samples without labels, which the final step segments; raises UserError if one cannot be read."""

    @abstractmethod
    def hash_to_predict(self) -> str:
        """Return the SHA-256 of the samples without labels."""


class Subset(Samples):
    """Some of a layout's samples, by number."""

    def __init__(self, layout: Layout, numbers: Sequence[int]):
        self.layout, self.numbers = layout, numbers
        self.names, self.voxel = [layout.names[number] for number in numbers], layout.voxel
        self.files, self.states = layout.files, layout.states

    def __getitem__(self, number: int) -> Sample:
        return self.layout[self.numbers[number]]


class StackSamples(Samples):
    """The grey slices (H, W) of a stack, without labels."""

    def __init__(self, path: Path, way_out: str = GET_DATA):
        self.images = Gray(open_pages(path, way_out))
        self.names, self.voxel = self.images.names, self.images.voxel
        self.watch(self.images.files)
        self.folders = [path] if path.is_dir() and is_zarr(path) else []

    def __getitem__(self, number: int) -> Sample:
        return Sample(self.names[number], self.images[number], voxel=self.voxel)


class Stacks(Layout):
    """Three TIFF stacks: `train-volume.tif` and `train-labels.tif` (N, H, W), and `test-volume.tif` to segment."""

    name, what, noun, meaning = "stacks", "a folder of TIFF stacks", "slice", "cells"
    labels_name, leave_out = "labels", "take it out of both stacks in Fiji: Image > Stacks > Delete Slice"

    def __init__(self, folder: Path):
        if not folder.is_dir():
            here = "" if folder.is_absolute() else f" in {Path.cwd()}"  # perhaps the script runs in the wrong folder
            raise UserError(f"{folder} is not a folder{here}; {GET_DATA}")
        self.folder, self.labels_path, self.notes = folder, folder / LABELS, []
        self.watch([folder / name for name in (VOLUME, LABELS, TEST)])
        self.images = Gray(TiffPages(folder / VOLUME, way_to(folder / VOLUME)))
        self.voxel = self.images.voxel
        self.labels = one_channel(TiffPages(folder / LABELS, way_to(folder / LABELS)))
        if len(self.images) != len(self.labels):
            raise UserError(f"{folder / VOLUME} has {len(self.images)} slices but {LABELS} has {len(self.labels)}; "
                            "add or delete slices in Fiji until every image has its label, in the same order")
        if self.images.shape != self.labels.shape:
            sizes = [f"{stack.shape[1]}x{stack.shape[2]}" for stack in (self.images, self.labels)]
            raise UserError(f"{folder / VOLUME} is {sizes[0]} pixels but {LABELS} is {sizes[1]}; export the "
                            "labels again at the size of the images")
        if not (folder / TEST).is_file():
            raise UserError(f"{folder / TEST} not found; {way_to(folder / TEST)}")
        self.names, self.dtype = [f"slice {number}" for number in range(len(self.images))], self.images.dtype
        self.groups = [""] * len(self.names)

    def __getitem__(self, number: int) -> Sample:
        return Sample(self.names[number], self.images[number], self.labels[number], voxel=self.voxel)

    def size(self, number: int) -> tuple[int, int]:
        return self.images.shape[1:3]

    def name_samples(self, numbers: Sequence[int]) -> str:
        return f"slice{'s' * (len(numbers) > 1)} {format_slices(numbers)}"

    def hashes(self) -> dict[str, str]:
        return {str((self.folder / name).resolve()): file_hash(self.folder / name) for name in (VOLUME, LABELS)}

    def to_predict(self) -> StackSamples:
        samples = StackSamples(self.folder / TEST)
        samples.watch(self.files)
        for _ in samples.images:  # a damaged slice is reported now, not after the training
            pass
        return samples

    def hash_to_predict(self) -> str:
        return file_hash(self.folder / TEST)


class FolderSamples(Samples):
    """Images of any size, one per file, without labels."""

    def __init__(self, sources: list[folders.Source]):
        self.sources, self.names = sources, [source.name for source in sources]
        self.watch([source.image for source in sources])

    def __getitem__(self, number: int) -> Sample:
        source = self.sources[number]
        return Sample(source.name, folders.read_image(source.image, by_rows=True), voxel=voxel_of(source.image))

    @cached_property
    def voxel(self) -> Voxel | None:
        """The pixel size that all images state; None if one states none, or a different one."""
        return common_voxel(self.files)

    @cached_property
    def area(self) -> int:
        return area_of(self.files)


class PageSamples(Samples):
    """The pages of a stack as separate images, grey or coloured, named by their number."""

    def __init__(self, pages: Pages):
        self.pages, self.voxel, self.area = pages, pages.voxel, math.prod(pages.shape[:3])
        digits = len(str(len(pages) - 1))
        self.names = [f"{number:0{digits}}" for number in range(len(pages))] if len(pages) > 1 else [
            name_of(pages.path)]
        self.watch(pages.files)
        self.folders = [pages.path] if pages.path.is_dir() and is_zarr(pages.path) else []

    def __getitem__(self, number: int) -> Sample:
        image = folders.coloured(self.pages[number], self.pages.path, f" in image {self.names[number]}")
        return Sample(self.names[number], image, voxel=self.voxel)


def images_of(path: Path) -> Samples:
    """Open images that are predicted separately: files, or the pages of a Zarr, an .npy file or a multi-page TIFF.

    Raises UserError if there is none.
    """
    path = two_folders.images_in(path)
    if is_zarr(path) or (path.is_file() and (path.suffix.lower() == ".npy" or (
            path.suffix.lower() in TIFF and len(TiffPages(path)) > 1))):
        return PageSamples(open_pages(path, "name an image, a folder of images, or a Zarr"))
    return FolderSamples(folders.find_images(path))


class Folders(Layout):
    """A folder for each image, as in the Data Science Bowl 2018: `<id>/images/<id>.png` and `<id>/masks/*.png`."""

    name, what, noun, meaning = "folders", "a folder of images with masks", "image", "nuclei"
    leave_out, labels_name = "take its folder away", "masks"
    expected: ClassVar[str] = folders.KAGGLE_LAYOUT
    find = staticmethod(folders.find_sources)

    def __init__(self, folder: Path):
        self.folder = self.labels_path = folder
        sources = self.find(folder)
        self.sources = [source for source in sources if source.masks]
        self.unlabelled = [source for source in sources if not source.masks]
        if not self.sources:
            raise UserError(f"{folder}: no image has {self.labels_name}, so there is nothing to learn from; "
                            f"{self.expected}")
        self.names = [source.name for source in self.sources]
        self.watch([source.image for source in sources])
        self._remarks = folders.Remarks(without=[source.name for source in self.unlabelled])
        self._properties: dict[int, tuple[str, np.dtype]] = {}

    def _read(self, number: int) -> np.ndarray:
        """Read an image and remember its modality and type."""
        image = folders.read_image(self.sources[number].image)
        self._properties[number] = folders.modality_of(image), image.dtype
        return image

    @property
    def properties(self) -> list[tuple[str, np.dtype]]:
        """Modality, by its pixels, and type of each image; reads the images that were not read yet."""
        for number in range(len(self)):
            if number not in self._properties:
                self._read(number)
        return [self._properties[number] for number in range(len(self))]

    @property
    def groups(self) -> list[str]:
        """The modality of each image."""
        return [modality for modality, _ in self.properties]

    @property
    def dtype(self) -> np.dtype:
        return np.result_type(*{dtype for _, dtype in self.properties})

    @property
    def notes(self) -> list[str]:
        """Remarks on the files read so far, a sentence each."""
        return self._remarks.sentences()

    def __getitem__(self, number: int) -> Sample:
        source, image = self.sources[number], self._read(number)
        label = self._read_label(source, image.shape[:2])
        return Sample(source.name, image, label, self._properties[number][0], voxel_of(source.image))

    @cached_property
    def voxel(self) -> Voxel | None:
        """The pixel size that all labelled images state; None if one states none, or a different one."""
        return common_voxel([source.image for source in self.sources])

    def size(self, number: int) -> tuple[int, int]:
        return size_of(self.sources[number].image)

    def objects(self, label: np.ndarray) -> np.ndarray:
        """Return the objects of a label (H, W), a number for each, 0 = none."""
        return label

    def _read_label(self, source: folders.Source, shape: tuple[int, int]) -> np.ndarray:
        """Read the label, uint16 (H, W), of an image of this shape."""
        return folders.read_masks(source, shape, self._remarks)

    def hashes(self) -> dict[str, str]:
        return {str(source.folder.resolve()): input_hash(source.folder) for source in self.sources}

    def to_predict(self) -> FolderSamples:
        for source in self.unlabelled:
            folders.read_image(source.image)  # a damaged image is reported now, not after the training
        return FolderSamples(self.unlabelled)

    def hash_to_predict(self) -> str:
        lines = [f"{source.name} {file_hash(source.image)}\n" for source in self.unlabelled]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


class TwoFolders(Folders):
    """Files of equal names in `images/` and `labels/` (or `masks/`), of any sizes; see `two_folders`."""

    name, what, noun = "two folders", "a folder of images and labels", "image"
    leave_out, labels_name = "take its label file away: it is predicted then", "labels"
    if_mistaken = "if they are something else, use --task or --classes"
    expected = two_folders.PAIRED_LAYOUT
    find = staticmethod(two_folders.find_pairs)

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._remarks.missing = "label"
        self.labels_path, self.stray_labels = two_folders.labels_folder(folder), two_folders.stray_labels(folder)
        self.watch(self.files + [mask for source in self.sources for mask in source.masks])

    @cached_property
    def _counts(self) -> list[tuple[int, int]]:
        """For each label, how many values it has except 0, and how many connected pieces of one value."""
        return [two_folders.numbers_and_pieces(two_folders.read_label(source.masks[0])) for source in self.sources]

    @property
    def meaning(self) -> str:
        """'nuclei' if a label has several numbers, and most numbers are one piece each; otherwise 'cells'."""
        numbers, pieces = (sum(counts) for counts in zip(*self._counts, strict=True))
        several = any(numbers > 1 for numbers, _ in self._counts)
        return "nuclei" if several and pieces <= MOST_PIECES * numbers else "cells"

    @property
    def objects_share_number(self) -> bool:
        return all(numbers < 2 for numbers, _ in self._counts) and any(pieces > 1 for _, pieces in self._counts)

    @property
    def notes(self) -> list[str]:
        """Labels without an image, and remarks on the files read so far, a sentence each."""
        count = len(self.stray_labels)
        strays = [f"{count} label{'s have' if count > 1 else ' has'} no image of the same name, for instance "
                  f"{self.stray_labels[0].name}: left out"] if count else []
        return strays + super().notes

    def objects(self, label: np.ndarray) -> np.ndarray:
        """Return a label's own numbers or, if they do not number objects, its 4-connected pieces of one value."""
        return label if self.meaning == "nuclei" else measure.label(label, background=0, connectivity=1)

    def _read_label(self, source: folders.Source, shape: tuple[int, int]) -> np.ndarray:
        return two_folders.read_pair(source, shape)

    def hashes(self) -> dict[str, str]:
        return {str(path.resolve()): file_hash(path) for source in self.sources
                for path in (source.image, *source.masks)}


LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in (Stacks, Folders, TwoFolders)}


def layout_class(folder: Path) -> type[Layout]:
    """Return the layout that a folder has; `Stacks` if it looks like none."""
    if folders.is_image_folder(folder):
        return Folders
    return TwoFolders if two_folders.is_two_folders(folder) else Stacks


def layout_of(folder: str | Path) -> Layout:
    """Open a folder in the layout that it has."""
    folder = Path(folder)
    return layout_class(folder)(folder)
