"""Two folders of files with equal names, the usual way to store data for a U-Net.

    images/<name>.png    grey or coloured, PNG or TIFF, of any size
    labels/<name>.tif    its label (or masks/): one channel, a number for each pixel; without it the image is predicted
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skimage import measure

from unet.inputs.folders import Source, image_files
from unet.inputs.pages import JPEG, name_of, read_pixels
from unet.inputs.stacks import VOLUME
from utils import UserError

IMAGE_FOLDER, LABEL_FOLDERS = "images", ("labels", "masks")
PAIRED_LAYOUT = "expected images/<name>.png and labels/<name>.png, or .tif, with equal names"
AS_NUMBERS = ("in Fiji: Image > Type > 8-bit, or 16-bit, then File > Save As > Tiff; first convert the colours of a "
              "palette to their numbers")


def is_two_folders(folder: str | Path) -> bool:
    """Tell whether a folder has no ISBI stack, but `images` with PNG or TIFF files inside, or with labels beside it."""
    folder = Path(folder)
    labelled = (folder / IMAGE_FOLDER).is_dir() and any((folder / name).is_dir() for name in LABEL_FOLDERS)
    return not (folder / VOLUME).exists() and (labelled or bool(image_files(folder / IMAGE_FOLDER)))


def images_in(path: str | Path) -> Path:
    """Return the folder of images if `path` is two folders, otherwise `path`."""
    return Path(path) / IMAGE_FOLDER if is_two_folders(path) else Path(path)


def labels_folder(folder: Path) -> Path:
    """Return the folder of labels; raise UserError if there is none, or both labels/ and masks/."""
    candidates = [folder / name for name in LABEL_FOLDERS if (folder / name).is_dir()]
    if len(candidates) != 1:
        what = "both labels/ and masks/" if candidates else "neither labels/ nor masks/"
        raise UserError(f"{folder} has images/ and {what}; {PAIRED_LAYOUT}")
    return candidates[0]


def find_pairs(folder: Path) -> list[Source]:
    """List the images of two folders, by name, each with its label if it has one.

    Raises UserError if there is no image, two files of a folder have the same name, or no label has an image's name.
    """
    labels, images = _by_name(labels_folder(folder)), _by_name(folder / IMAGE_FOLDER)
    for inside, files, harm in ((folder / IMAGE_FOLDER, images, "changes grey levels"),
                                (labels_folder(folder), labels, "softens the edges of labels")):
        if not files and (jpegs := image_files(inside, JPEG)):
            raise UserError(f"{inside} has JPEG files, for instance {jpegs[0].name}, and JPEG {harm}; save "
                            "the originals as PNG or TIFF")
    if not images:
        raise UserError(f"{folder / IMAGE_FOLDER} has no PNG or TIFF files; {PAIRED_LAYOUT}")
    sources = [Source(name, path, [labels[name]] if name in labels else [], folder) for name, path in images.items()]
    if labels and not any(source.masks for source in sources):
        raise UserError(f"{folder}: no label has the name of an image, for instance {next(iter(labels.values())).name} "
                        f"and {sources[0].image.name}; {PAIRED_LAYOUT}")
    return sources


def stray_labels(folder: Path) -> list[Path]:
    """List the labels that have no image."""
    images = _by_name(folder / IMAGE_FOLDER)
    return [path for name, path in _by_name(labels_folder(folder)).items() if name not in images]


def _by_name(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by name without ending; raise UserError if two have the same."""
    files: dict[str, Path] = {}
    for path in image_files(folder):
        name = name_of(path)
        if name in files:
            raise UserError(f"{folder} has {files[name].name} and {path.name}, expected one file of each name; take "
                            "one away")
        files[name] = path
    return files


def read_label(path: Path) -> np.ndarray:
    """Read a label as uint16 (H, W), its numbers unchanged. Raises UserError for colours, fractions and over 65535."""
    pixels = read_pixels(path)
    label = pixels[..., 0]
    if (pixels != label[..., np.newaxis]).any():
        raise UserError(f"{path} is a colour image, expected a label of one channel, a number for each pixel; "
                        f"{AS_NUMBERS}")
    is_whole = label.dtype.kind in "uib" or (np.isfinite(label).all() and (label == np.rint(label)).all())
    if not is_whole or label.min() < 0 or label.max() > np.iinfo(np.uint16).max:
        raise UserError(f"{path} has values from {label.min().item():g} to {label.max().item():g}, expected whole "
                        f"numbers from 0 to 65535; {AS_NUMBERS}")
    return label.astype(np.uint16)


def read_pair(source: Source, shape: tuple[int, int]) -> np.ndarray:
    """Read the label, uint16 (H, W), of an image of this shape; raise UserError if it has another size."""
    label = read_label(source.masks[0])
    if label.shape != shape:
        raise UserError(f"{source.masks[0]} is {label.shape[0]}x{label.shape[1]} pixels but its image "
                        f"{source.image.name} is {shape[0]}x{shape[1]}, expected the same; copy the right label, or "
                        "take it away")
    return label


def numbers_and_pieces(label: np.ndarray) -> tuple[int, int]:
    """Count a label's (H, W) values without 0, and its connected pieces of one value."""
    return len(np.unique(label[label > 0])), int(measure.label(label, background=0, connectivity=2).max())
