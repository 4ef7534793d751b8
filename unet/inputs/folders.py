"""Folders of images with masks, as Kaggle's Data Science Bowl 2018 lays them out.

    <id>/images/<id>.png    one image, gray or coloured
    <id>/masks/*.png        one mask for each object; without masks the image is there to be predicted
"""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unet.inputs.lazy import PageRows, grey_levels, grey_type
from unet.inputs.pages import JPEG, name_of, read_pixels, without_transparency
from unet.inputs.stacks import VOLUME
from utils import UserError, counted

MODALITIES = ("fluorescence", "histology", "bright-field")
COLOURED = 15.0  # grey levels between the strongest and the weakest channel, mean over the image; gray has 0
DARK = 64.0  # median grey level below which a coloured image is fluorescence in one colour, not stained tissue
BACKGROUND = (1.0, 50.0, 99.8)  # percentiles of brightness: the darkest, the background, the brightest
DEEP = (0.1, 99.9)  # percentiles of an image of more than 8 bits that are shown black and white
SUFFIXES = (".png", ".tif", ".tiff")
TO_PREDICT = (*SUFFIXES, *JPEG)  # what JPEG has lost, labels need
LAYOUT = "expected <id>/images/<id>.png and <id>/masks/*.png"


@dataclass(frozen=True)
class Source:
    """Where an image's files lie; without `masks` it is there to be predicted."""

    name: str
    image: Path
    masks: list[Path] = field(default_factory=list)
    folder: Path | None = None  # which holds both


@dataclass
class News:
    """What was noticed while reading, by name of the image or file, however often it is read; said in `sentences`.

    overlap, hidden : pixels of several objects, and objects without a pixel left, of each image that has any
    """

    without: list[str] = field(default_factory=list)
    missing: str = "masks"  # what those are without
    overlap: dict[str, int] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """Each sort of news in a sentence."""
        lines = []
        for names, one, many in (
                (self.without, f"has no {self.missing}: it is predicted, not trained on",
                 f"images have no {self.missing}: they are predicted, not trained on"),
                (self.empty, "is an empty mask: left out", "masks are empty and left out")):
            names = list(dict.fromkeys(names))
            if names:
                several = f"{len(names)} {many}, for instance {names[0]}"
                lines.append(f"{names[0]} {one}" if len(names) == 1 else several)
        if self.overlap:
            names, pixels = sorted(self.overlap), sum(self.overlap.values())
            lines.append(f"masks overlap in {counted(len(names), 'image')} ({names[0]}"
                         f"{', ...' * (len(names) > 1)}): {counted(pixels, 'pixel')} went to the smaller object")
        if self.hidden:
            count, name = sum(self.hidden.values()), min(self.hidden)
            several = f"{count} objects are covered wholly by others and left out, for instance {name}"
            lines.append(several if count > 1 else f"{name} has an object that others cover wholly: left out")
        return lines


# ------------------------------------------------------------------------------------------------ the folder


def subfolders(folder: Path) -> list[Path]:
    """Folders inside, sorted; hidden ones and those of the Mac's archiver left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def image_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """PNG and TIFF files of a folder, sorted; none where there is no such folder."""
    files = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in files if path.suffix.lower() in suffixes and not path.name.startswith("."))


def is_image_folder(folder: str | Path) -> bool:
    """Whether a folder holds folders with `images` or `masks` inside, and no ISBI stack."""
    folder = Path(folder)
    return folder.is_dir() and not (folder / VOLUME).exists() and any(
        (sub / inside).is_dir() for sub in subfolders(folder) for inside in ("images", "masks"))


def find_sources(folder: Path) -> list[Source]:
    """The images of a nuclei folder, by name. Raises UserError for masks without their image, or an unclear image."""
    sources = []
    for sub in subfolders(folder):
        images, masks = image_files(sub / "images"), image_files(sub / "masks")
        if not images:
            if masks:
                raise UserError(f"{sub / 'masks'} has {len(masks)} masks but {sub / 'images'} no PNG or TIFF image; "
                                f"put the image there, or take {sub} away")
            continue
        named = [path for path in images if path.stem == sub.name]
        if len(images) > 1 and len(named) != 1:
            raise UserError(f"{sub / 'images'} has {len(images)} images ({images[0].name}, {images[1].name}), expected "
                            f"one; name the right one {sub.name}.png")
        sources.append(Source(sub.name, (named or images)[0], masks, sub))
    return sources


def find_images(path: str | Path) -> list[Source]:
    """Images to predict: of a nuclei folder, of a folder or pattern (`*`) of PNG, JPEG or TIFF files, or one such file.

    Raises UserError where there is none, or two would be written to one name.
    """
    path = Path(path)
    pattern = glob.has_magic(str(path)) and not path.exists()
    if not (path.exists() or pattern):
        raise UserError(f"{path} not found; name an image, a folder of images, or a folder with <id>/images/<id>.png")
    if is_image_folder(path):
        return find_sources(path)
    named = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] if pattern else [path]
    files = image_files(path, TO_PREDICT) if path.is_dir() else [
        file for file in named if not pattern or file.suffix.lower() in TO_PREDICT]
    if not files:
        raise UserError(f"{path} has no PNG, JPEG or TIFF image; {LAYOUT}, or image files side by side")
    names = [name_of(file) for file in files]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path} has several images named {name}; their predictions would overwrite each other, "
                            "rename them")
    return [Source(name, file) for name, file in zip(names, files, strict=True)]


# -------------------------------------------------------------------------------------------------- the files


def read_image(path: Path, by_rows: bool = False) -> np.ndarray | PageRows:
    """Read an image as (H, W, 3), uint8, uint16 or else float32, in its own depth; gray is repeated.

    With `by_rows` a TIFF of 64 MiB and more is `PageRows`, unless it is compressed as a single strip.
    """
    return coloured(read_pixels(path, by_rows), path)


def coloured(page: np.ndarray | PageRows, path: Path, where: str = "") -> np.ndarray | PageRows:
    """A page (H, W[, C]) of a file, which one `where` says, as `read_image` gives it; `PageRows` by rows, too."""
    if isinstance(page, PageRows):
        return PageRows((*page.shape[:2], 3), grey_type(page.dtype, path),
                        lambda first, last: coloured(page[first:last], path, where))
    pixels = grey_levels(without_transparency(page, path), path, where)
    return np.repeat(pixels, 3 // pixels.shape[2], axis=2)


def in_8_bit(image: np.ndarray) -> np.ndarray:
    """An image uint8, to look at: of more bits .1 % of the pixels become 0, .1 % 255; the network sees them all."""
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image, DEEP)
    scaled = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def read_masks(source: Source, shape: tuple[int, int], news: News) -> np.ndarray:
    """Instance map uint16 (H, W) of an image's masks; every pixel but 0 is the object's.

    Raises UserError for a mask of another size than the image's.
    """
    places = []
    for path in source.masks:
        mask = read_pixels(path).any(axis=2)
        if mask.shape != shape:
            raise UserError(f"{path} is {mask.shape[0]}x{mask.shape[1]} pixels but its image {source.image.name} is "
                            f"{shape[0]}x{shape[1]}, expected the same; copy the right mask, or take it away")
        place = np.flatnonzero(mask)
        if place.size:
            places.append(place)
        else:
            news.empty.append(str(path))
    if len(places) > np.iinfo(np.uint16).max:
        raise UserError(f"{source.folder}: {len(places)} masks, expected 65535 at most; cut the image into pieces")
    labels, overlapping, hidden = instance_map(places, shape)
    if overlapping:
        news.overlap[source.name] = overlapping
    if hidden:
        news.hidden[source.name] = hidden
    return labels


def instance_map(places: list[np.ndarray], shape: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """Instance map uint16 (H, W) of nuclei, each given by its pixels' numbers; 1 is the largest nucleus.

    A pixel of several goes to the smallest. Also returns how many such pixels there are, and how many nuclei have none
    left.
    """
    labels = np.zeros(shape[0] * shape[1], np.uint16)
    if not places:
        return labels.reshape(shape), 0, 0
    for number, place in enumerate(sorted(places, key=len, reverse=True), 1):
        labels[place] = number
    overlapping = int(np.sum(np.bincount(np.concatenate(places), minlength=1) > 1))
    left = np.bincount(labels, minlength=len(places) + 1) > 0
    left[0] = True
    labels = (np.cumsum(left) - 1).astype(np.uint16)[labels]  # no number missing
    return labels.reshape(shape), overlapping, int(np.sum(~left))


# ------------------------------------------------------------------------------------------- what it shows


def modality_of(image: np.ndarray) -> str:
    """What an image (H, W, 3) shows, by its pixels: a dark ground is fluorescence, bright is histology or bright-field.

    The background is the median brightness; in gray images dark means nearer to the darkest than to the brightest
    pixels, as a faint image's brightest may be darker than another's background.
    """
    step = max(1, round((image[..., 0].size / 100_000) ** 0.5))  # 100 000 pixels tell enough
    pixels = in_8_bit(image[::step, ::step]).reshape(-1, 3).astype(np.float32)
    brightness = pixels.mean(axis=1)
    low, background, high = np.percentile(brightness, BACKGROUND)
    if np.ptp(pixels, axis=1).mean() > COLOURED:
        return "fluorescence" if background < DARK else "histology"
    return "bright-field" if 2 * background > low + high else "fluorescence"
