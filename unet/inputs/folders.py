"""Folders of images with masks, as Kaggle's Data Science Bowl 2018 lays them out.

    <id>/images/<id>.png    one image, grey or coloured
    <id>/masks/*.png        one mask for each object; an image without masks is predicted
"""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from skimage.exposure import rescale_intensity
from skimage.segmentation import relabel_sequential

from unet.inputs.lazy import PageRows, grey_levels, grey_type
from unet.inputs.pages import JPEG, name_of, read_pixels, without_transparency
from unet.inputs.stacks import VOLUME
from utils import UserError, count_of

MODALITIES = ("fluorescence", "histology", "bright-field")
COLOURED = 15.0  # grey levels between the strongest and the weakest channel, mean over the image; grey has 0
DARK = 64.0  # median grey level below which a coloured image is fluorescence in one colour, not stained tissue
BACKGROUND = (1.0, 50.0, 99.8)  # percentiles of brightness: the darkest, the background, the brightest
DISPLAY_PERCENTILES = (0.1, 99.9)  # percentiles that become black and white where an image of more than 8 bits is shown
PICTURE_PERCENTILES = (0.5, 99.8)  # percentiles that become black and white in pictures of any image
SUFFIXES = (".png", ".tif", ".tiff")
TO_PREDICT = (*SUFFIXES, *JPEG)  # JPEG's loss is too much for training, but not for prediction
KAGGLE_LAYOUT = "expected <id>/images/<id>.png and <id>/masks/*.png"


@dataclass(frozen=True)
class Source:
    """The files of an image; without `masks` it is predicted."""

    name: str
    image: Path
    masks: list[Path] = field(default_factory=list)
    folder: Path | None = None  # that holds both


@dataclass
class Remarks:
    """Remarks on the files that were read, by name of the image or file; reading a file again adds none.

    without : images that have no masks, or no label, as `missing` says
    overlap, hidden : by image, how many pixels several objects share, and how many objects have no pixel left
    empty : masks that show nothing
    """

    without: list[str] = field(default_factory=list)
    missing: str = "masks"
    overlap: dict[str, int] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """Return a sentence for each sort of remark."""
        lines = []
        for names, singular, plural in (
                (self.without, f"has no {self.missing}: it is predicted, not trained on",
                 f"images have no {self.missing}: they are predicted, not trained on"),
                (self.empty, "is an empty mask: left out", "masks are empty and left out")):
            names = list(dict.fromkeys(names))
            if names:
                lines.append(f"{names[0]} {singular}" if len(names) == 1 else
                             f"{len(names)} {plural}, for instance {names[0]}")
        if self.overlap:
            names, pixels = sorted(self.overlap), sum(self.overlap.values())
            lines.append(f"masks overlap in {count_of(len(names), 'image')} ({names[0]}"
                         f"{', ...' * (len(names) > 1)}): {count_of(pixels, 'pixel')} went to the smaller object")
        if self.hidden:
            count, name = sum(self.hidden.values()), min(self.hidden)
            lines.append(f"{name} has an object that others cover completely: left out" if count == 1 else
                         f"{count} objects are completely covered by others and left out, for instance {name}")
        return lines


# ------------------------------------------------------------------------------------------------ the folder


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones and those that macOS's archiver adds."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def image_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Return the files of a folder with these endings (default: PNG and TIFF), sorted; none if it does not exist."""
    files = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in files
                  if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file())


def is_image_folder(folder: str | Path) -> bool:
    """Tell whether a folder holds folders with `images` or `masks` inside, and no ISBI stack."""
    folder = Path(folder)
    return folder.is_dir() and not (folder / VOLUME).exists() and any(
        (sub / inside).is_dir() for sub in subfolders(folder) for inside in ("images", "masks"))


def find_sources(folder: Path) -> list[Source]:
    """List the images of a nuclei folder, by name. Raises UserError for masks without an image, or ambiguous images."""
    sources = []
    for sub in subfolders(folder):
        images, masks = image_files(sub / "images"), image_files(sub / "masks")
        if not images:
            if masks:
                raise UserError(f"{sub / 'masks'} has {len(masks)} masks but {sub / 'images'} no PNG or TIFF image; "
                                f"put the image there, or take {sub} away")
            continue
        namesakes = [path for path in images if path.stem == sub.name]
        if len(images) > 1 and len(namesakes) != 1:
            raise UserError(f"{sub / 'images'} has {len(images)} images ({images[0].name}, {images[1].name}), expected "
                            f"one; name the right one {sub.name}.png")
        sources.append(Source(sub.name, (namesakes or images)[0], masks, sub))
    return sources


def find_images(path: str | Path) -> list[Source]:
    """List images to predict: a nuclei folder's, or a folder's or pattern's (`*`) PNG, JPEG or TIFF files, or one file.

    Raises UserError if there is none, or two predictions would have the same name.
    """
    path = Path(path)
    pattern = glob.has_magic(str(path)) and not path.exists()
    if not (path.exists() or pattern):
        raise UserError(f"{path} not found; name an image, a folder of images, or a folder with <id>/images/<id>.png")
    if is_image_folder(path):
        return find_sources(path)
    matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] if pattern else [path]
    files = image_files(path, TO_PREDICT) if path.is_dir() else [
        file for file in matches if not pattern or file.suffix.lower() in TO_PREDICT]
    if not files:
        raise UserError(f"{path} has no PNG, JPEG or TIFF image; {KAGGLE_LAYOUT}, or image files side by side")
    names = [name_of(file) for file in files]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path} has several images named {name}; their predictions would overwrite each other, "
                            "rename them")
    return [Source(name, file) for name, file in zip(names, files, strict=True)]


# -------------------------------------------------------------------------------------------------- the files


def read_image(path: Path, by_rows: bool = False) -> np.ndarray | PageRows:
    """Read an image as (H, W, 3), uint8 or uint16 in its own depth, otherwise float32; grey is repeated.

    With `by_rows` a TIFF of 64 MiB or more is `PageRows`, unless it is compressed as a single strip.
    """
    return coloured(read_pixels(path, by_rows), path)


def coloured(page: np.ndarray | PageRows, path: Path, where: str = "") -> np.ndarray | PageRows:
    """Return a page (H, W[, C]) of a file as `read_image` does; `PageRows` stay such. `where` is for messages."""
    if isinstance(page, PageRows):
        return PageRows((*page.shape[:2], 3), grey_type(page.dtype, path),
                        lambda first, last: coloured(page[first:last], path, where))
    pixels = grey_levels(without_transparency(page, path), path, where)
    return np.repeat(pixels, 3 // pixels.shape[2], axis=2)


def in_8_bit(image: np.ndarray) -> np.ndarray:
    """Return an image as uint8, to look at only: if it has more bits, .1 % of its pixels become 0 and .1 % 255."""
    return image if image.dtype == np.uint8 else stretch(image, DISPLAY_PERCENTILES)


def stretch(image: np.ndarray, percentiles: tuple[float, float] = PICTURE_PERCENTILES) -> np.ndarray:
    """Stretch an image (H, W[, C]) between two percentiles, the same for all channels, so colours are kept: uint8."""
    low, high = np.percentile(image, percentiles)
    levels = (low, max(high, low + 1e-6))
    return np.rint(rescale_intensity(image.astype(float), levels, (0, 255))).astype(np.uint8)


def read_masks(source: Source, shape: tuple[int, int], remarks: Remarks) -> np.ndarray:
    """Read an image's masks as an instance map uint16 (H, W); a mask's pixels that are not 0 are the object.

    Raises UserError for a mask of another size than the image's.
    """
    objects = []
    for path in source.masks:
        mask = read_pixels(path).any(axis=2)
        if mask.shape != shape:
            raise UserError(f"{path} is {mask.shape[0]}x{mask.shape[1]} pixels but its image {source.image.name} is "
                            f"{shape[0]}x{shape[1]}, expected the same; copy the right mask, or take it away")
        pixels = np.flatnonzero(mask)
        if pixels.size:
            objects.append(pixels)
        else:
            remarks.empty.append(str(path))
    if len(objects) > np.iinfo(np.uint16).max:
        raise UserError(f"{source.folder}: {len(objects)} masks, expected 65535 at most; cut the image into pieces")
    labels, overlap, hidden = instance_map(objects, shape)
    if overlap:
        remarks.overlap[source.name] = overlap
    if hidden:
        remarks.hidden[source.name] = hidden
    return labels


def instance_map(objects: list[np.ndarray], shape: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """Return the instance map uint16 (H, W) of nuclei, given as flat indices of their pixels; 1 is the largest nucleus.

    A pixel of several nuclei goes to the smallest. Also return how many such pixels there are, and how many nuclei
    have no pixel left.
    """
    labels = np.zeros(shape[0] * shape[1], np.uint16)
    if not objects:
        return labels.reshape(shape), 0, 0
    for number, pixels in enumerate(sorted(objects, key=len, reverse=True), 1):
        labels[pixels] = number
    overlap = int(np.sum(np.bincount(np.concatenate(objects), minlength=1) > 1))
    labels = relabel_sequential(labels.reshape(shape))[0]
    return labels, overlap, len(objects) - int(labels.max())


# ------------------------------------------------------------------------------------------- what it shows


def modality_of(image: np.ndarray) -> str:
    """Tell an image's (H, W, 3) modality: fluorescence on a dark background, histology or bright-field on a bright one.

    The background is the median brightness. In grey images it is dark if it is nearer to the darkest than to the
    brightest pixels, because a faint image's brightest pixels may be darker than another's background.
    """
    step = max(1, round((image[..., 0].size / 100_000) ** 0.5))  # 100 000 pixels are enough
    pixels = in_8_bit(image[::step, ::step]).reshape(-1, 3).astype(np.float32)
    brightness = pixels.mean(axis=1)
    low, background, high = np.percentile(brightness, BACKGROUND)
    if np.ptp(pixels, axis=1).mean() > COLOURED:
        return "fluorescence" if background < DARK else "histology"
    return "bright-field" if 2 * background > low + high else "fluorescence"
