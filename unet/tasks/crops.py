"""Step 1 for images of many sizes: windows of one size that cover them, and augmented windows cut out at random.

Pixels stay as large as the microscope made them: small nuclei lose nothing. Squeezing whole images is there on request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from skimage.transform import resize

from unet.inputs.folders import RAW, Nuclei
from unet.tasks.transforms import (
    FLIPS,
    brightness,
    crop,
    crop_corner,
    elastic_field,
    flip,
    gaussian_noise,
    symmetric_pad,
    turn_field,
    uniform_noise,
    warp,
)
from utils import OverlapTile


@dataclass(frozen=True)
class WindowOptions:
    """What is drawn for each augmented window; a range is (least, most), drawn uniformly."""

    side: int = 256  # of a window, pixels
    turn_probability: float = 0.7
    angle: tuple[float, float] = (-180.0, 180.0)  # rotation, degrees
    zoom: tuple[float, float] = (0.7, 1.4)  # magnification; nuclei of one size come in many
    elastic_probability: float = 0.5
    elastic_alpha: tuple[float, float] = (1.0, 4.0)  # root mean square displacement along each axis, pixels
    elastic_sigma: tuple[float, float] = (20.0, 48.0)  # smoothness of the deformation, pixels
    # shares of the image's own range, from its low to its high level: of a faint image 6 grey levels are a fifth
    brightness: float = 0.06  # at most this shift up or down
    noise_probability: float = 0.25  # Gaussian or uniform, either as likely
    gaussian_sd: tuple[float, float] = (0.004, 0.024)  # standard deviation
    uniform_intensity: tuple[float, float] = (0.008, 0.04)  # largest change


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """Pad (H, W[, C]) to at least `side` pixels each way with its mirror image, itself in the middle."""
    height, width = image.shape[:2]
    shape = max(height, side), max(width, side)
    return symmetric_pad(image, shape, ((shape[0] - height) // 2, (shape[1] - width) // 2))


def window_corners(shape: tuple[int, int], side: int) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of the windows that cover an enlarged image of `shape` evenly."""
    return OverlapTile(tuple(max(size, side) for size in shape), side).inside()


def windows(nuclei: list[Nuclei], side: int) -> Iterator[tuple[np.ndarray, np.ndarray, dict]]:
    """Windows that cover each image: (side, side, 3), labels (side, side), and where they were cut."""
    for source, one in enumerate(nuclei):
        image, labels = enlarged(one.image, side), enlarged(one.labels, side)
        for corner in window_corners(one.image.shape[:2], side):
            record = {"source": source, "name": one.name, "corner": list(corner), "operations": []}
            yield crop(image, corner, (side, side)), crop(labels, corner, (side, side)), record


def augment_window(nuclei: Nuclei, labels: np.ndarray, rng: np.random.Generator, options: WindowOptions
                   ) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """One augmented window of an image and its labels uint16 (H, W): uint8 (side, side, 3), uint16 (side, side).

    The record lists each operation with its drawn parameters, in order, as the manifest keeps it.
    """
    side = options.side
    how = str(rng.choice(FLIPS))
    image, labels = (enlarged(flip(array, how), side) for array in (nuclei.image, labels))
    corner = crop_corner(image.shape[:2], (side, side), "random", rng)
    done = [{"operation": "flip", "how": how}, {"operation": "crop", "corner": list(corner)}]

    fields = []
    if rng.random() < options.turn_probability:
        angle, zoom = rng.uniform(*options.angle), rng.uniform(*options.zoom)
        fields.append(turn_field((side, side), angle, zoom))
        done.append({"operation": "turn and zoom", "angle": round(angle, 3), "zoom": round(zoom, 3)})
    if rng.random() < options.elastic_probability:
        alpha, sigma = rng.uniform(*options.elastic_alpha), rng.uniform(*options.elastic_sigma)
        fields.append(elastic_field((side, side), alpha, sigma, rng))
        done.append({"operation": "elastic", "alpha": round(alpha, 3), "sigma": round(sigma, 3)})
    if fields:
        image, labels = warp_window(image, labels, sum(fields), corner)
    else:
        image, labels = crop(image, corner, (side, side)), crop(labels, corner, (side, side))

    span = float(np.mean(np.subtract(nuclei.levels["high"], nuclei.levels["low"])))
    shift = span * rng.uniform(-options.brightness, options.brightness)
    image = brightness(image, shift)
    done.append({"operation": "brightness", "shift": round(shift, 3)})
    if rng.random() < options.noise_probability:
        if rng.random() < 0.5:
            sd = span * rng.uniform(*options.gaussian_sd)
            image = gaussian_noise(image, sd, rng)
            done.append({"operation": "gaussian noise", "sd": round(sd, 3)})
        else:
            intensity = span * rng.uniform(*options.uniform_intensity)
            image = uniform_noise(image, intensity, rng)
            done.append({"operation": "uniform noise", "intensity": round(intensity, 3)})
    return image, labels, done


def warp_window(image: np.ndarray, labels: np.ndarray, field: np.ndarray, corner: tuple[int, int]
                ) -> tuple[np.ndarray, np.ndarray]:
    """The window at `corner` (y, x) of (H, W, 3) and (H, W), both moved by the same field (2, side, side), pixels.

    Only what the field looks at is warped: of a large image a small part.
    """
    box = []
    for axis, size in enumerate(image.shape[:2]):
        steps = np.arange(field.shape[1 + axis], dtype=np.float32) + np.float32(corner[axis])
        looked = field[axis] + (steps[:, None] if axis == 0 else steps)
        first, last = int(np.floor(looked.min())), int(np.ceil(looked.max())) + 1
        # what is mirrored at the image's edge has to be in the part as well
        box.append((max(0, min(first, 2 * (size - 1) - last)), min(size, max(last, -first) + 1)))
    (top, bottom), (left, right) = box
    field = field + np.array([corner[0] - top, corner[1] - left], np.float32)[:, None, None]
    part = np.s_[top:bottom, left:right]
    return (warp(np.ascontiguousarray(image[part]), field),
            warp(np.ascontiguousarray(labels[part]), field, order=0))  # nearest: no new nuclei


def copies_of_each(nuclei: list[Nuclei], train: list[int], copies: int, side: int) -> list[int]:
    """How many augmented windows each image gives, `copies` on average; none where it is not in `train`.

    A kind gets a share by the square root of its number of images, so that rare kinds are seen often, yet not repeated
    endlessly; and within its kind an image by the square root of the number of its windows.
    """
    if not copies:
        return [0] * len(nuclei)
    roots = {number: len(window_corners(nuclei[number].image.shape[:2], side)) ** 0.5 for number in train}
    images_of = Counter(nuclei[number].kind for number in train)
    windows_of: Counter = Counter()
    for number, root in roots.items():
        windows_of[nuclei[number].kind] += root
    total = copies * len(train) / sum(count**0.5 for count in images_of.values())
    shares = [0.0] * len(nuclei)
    for number, root in roots.items():
        kind = nuclei[number].kind
        shares[number] = total * images_of[kind] ** 0.5 * root / windows_of[kind]
    return [max(1, round(share)) if share else 0 for share in shares]


# -------------------------------------------------------------------------------------------- whole and squeezed


def squeeze(image: np.ndarray, side: int) -> np.ndarray:
    """Resize uint8 (H, W, 3) to (side, side, 3), linearly; aspect ratio not kept."""
    small = resize(image, (side, side), order=1, preserve_range=True)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def squeezed(nuclei: Nuclei, side: int) -> Nuclei:
    """An image and its labels resized to (side, side), labels by the nearest pixel; grey levels stay as they are."""
    labels = resize(nuclei.labels, (side, side), order=0, preserve_range=True, anti_aliasing=False)
    return replace(nuclei, image=squeeze(nuclei.image, side), labels=labels.astype(np.uint16), levels=RAW)
