"""What augmentation does to an image: geometry, for image and label alike, and intensity, for the image alone."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

FLIPS = ("none", "vertical", "horizontal", "both")
CORNERS = ("left-bottom", "left-top", "right-bottom", "right-top")


# ---------------------------------------------------------------------------------- geometry: image and label


def flip(image: np.ndarray, how: str) -> np.ndarray:
    """Flip (H, W[, C]): 'vertical' turns it upside down, 'horizontal' left to right, 'both', or 'none'."""
    if how not in FLIPS:
        raise ValueError(f"flip {how!r}, expected one of {', '.join(FLIPS)}")
    step_y = -1 if how in ("vertical", "both") else 1
    step_x = -1 if how in ("horizontal", "both") else 1
    return image[::step_y, ::step_x]


def elastic_field(shape: tuple[int, int], alpha: float, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random displacement field, float32 (2, H, W): for each output pixel, where to look, dy and dx in pixels.

    White noise smoothed by a Gaussian (Simard et al. 2003, section 2), drawn on a grid `sigma` apart, which is as fine
    as such a field varies, and scaled so that each component has standard deviation `alpha` in every place.

    Parameters
    ----------
    shape : (height, width), pixels
    alpha : root mean square displacement along each axis, pixels
    sigma : standard deviation of the smoothing Gaussian, pixels; larger is smoother
    """
    def spread(size: int) -> csr_array:
        knots = np.arange(-4 * sigma, size + 4 * sigma, sigma)
        distance = (np.arange(size)[:, None] - knots) / sigma
        basis = np.where(abs(distance) < 4, np.exp(-0.5 * distance**2), 0)
        return csr_array((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))

    # sparse, as only the nine nearest knots count; and a dense product's BLAS threads would fight the other workers
    down, across = spread(shape[0]), spread(shape[1])
    noise = rng.standard_normal((2, down.shape[1], across.shape[1]), np.float32)
    return np.stack([down @ (across @ component.T).T for component in np.float32(alpha) * noise])


def turn_field(shape: tuple[int, int], angle: float, zoom: float) -> np.ndarray:
    """Displacement field, float32 (2, H, W), that turns by `angle` degrees and magnifies by `zoom` about the middle."""
    y, x = (np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2) for side in shape)
    cosine, sine = np.float32(np.cos(np.radians(angle)) / zoom), np.float32(np.sin(np.radians(angle)) / zoom)
    return np.stack([np.add.outer((cosine - 1) * y, -sine * x), np.add.outer(sine * y, (cosine - 1) * x)])


def warp(image: np.ndarray, field: np.ndarray, order: int = 1) -> np.ndarray:
    """Move (H, W[, C]) by a displacement field (2, h, w) in pixels; (h, w[, C]), dtype kept, mirrored beyond the image.

    A field of another size than the image puts out its upper left part; adding a corner to the field, another part.
    `order` 1 interpolates linearly, for integer images; 0 takes the nearest pixel, for labels: no new classes. The
    pixels are those of scipy's `map_coordinates` with mode 'mirror' (linear: to one grey level, by rounding) in half
    its time.
    """
    height, width = image.shape[:2]
    rows, columns = (np.arange(size, dtype=np.float32) for size in field.shape[1:])
    y, x = _folded(field[0] + rows[:, None], height), _folded(field[1] + columns, width)
    if order == 0 or min(height, width) < 2:
        places = np.rint(y).astype(np.int32) * width + np.rint(x).astype(np.int32)
        return image.reshape(height * width, *image.shape[2:]).take(places, axis=0)
    top, left = np.minimum(y.astype(np.int32), height - 2), np.minimum(x.astype(np.int32), width - 2)
    y -= top
    x -= left
    places = top * width + left
    channels = [_interpolated(image[..., c], places, y, x) for c in range(image.shape[2])] if image.ndim == 3 else None
    return _interpolated(image, places, y, x) if channels is None else np.stack(channels, axis=-1)


def _interpolated(image: np.ndarray, places: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Values between four pixels of an integer image (H, W), the upper left one at `places`, shares of 1 from it."""
    width, pixels = image.shape[1], image.astype(np.float32).ravel()
    upper, lower = pixels.take(places), pixels[width:].take(places)
    upper += (pixels[1:].take(places) - upper) * right
    lower += (pixels[width + 1:].take(places) - lower) * right
    upper += (lower - upper) * down
    return (upper + np.float32(0.5)).astype(image.dtype)


def _folded(index: np.ndarray, size: int) -> np.ndarray:
    """Coordinates mirrored into 0 .. size-1 at the first and last pixel."""
    last = np.float32(size - 1)
    if not last:
        return np.zeros_like(index)
    if index.min() < -last or index.max() > 2 * last:  # farther than one mirror image
        index = (index + last) % (2 * last) - last
    return last - np.abs(last - np.abs(index))


def crop_corner(shape: tuple[int, int], size: tuple[int, int], where: str, rng: np.random.Generator | None = None
                ) -> tuple[int, int]:
    """Upper left corner (y, x) of a crop of `size` pixels in an image of `shape`: at a named corner, or 'random'."""
    room_y, room_x = shape[0] - size[0], shape[1] - size[1]
    if min(room_y, room_x) < 0:
        raise ValueError(f"a crop of {size} does not fit an image of {shape}")
    if where == "random":
        if rng is None:
            raise ValueError("a random crop needs a generator")
        return int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))
    if where not in CORNERS:
        raise ValueError(f"crop at {where!r}, expected random or one of {', '.join(CORNERS)}")
    return room_y if where.endswith("bottom") else 0, room_x if where.startswith("right") else 0


def crop(image: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Cut `size` (height, width) out of (H, W[, C]) at `corner` (y, x), pixels."""
    return image[corner[0]:corner[0] + size[0], corner[1]:corner[1] + size[1]]


def symmetric_pad(image: np.ndarray, shape: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
    """Pad (h, w[, C]) to `shape` (H, W), with the image at `corner` (y, x) and its mirror image all around it."""
    widths = [(start, full - start - side) for start, full, side in zip(corner, shape, image.shape[:2], strict=True)]
    if min(min(pair) for pair in widths) < 0:
        raise ValueError(f"an image of {image.shape[:2]} at {corner} reaches beyond {shape}")
    return np.pad(image, widths + [(0, 0)] * (image.ndim - 2), mode="symmetric")


# -------------------------------------------------------------------------------------- intensity: image alone


def gaussian_noise(image: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise of standard deviation `sd` grey levels to a uint8 or uint16 image; clipped, dtype kept."""
    return _clipped(image + np.float32(sd) * rng.standard_normal(image.shape, np.float32), image.dtype)


def uniform_noise(image: np.ndarray, intensity: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise drawn evenly from -intensity .. +intensity grey levels to an image; clipped, dtype kept."""
    return _clipped(image + np.float32(intensity) * (2 * rng.random(image.shape, np.float32) - 1), image.dtype)


def brightness(image: np.ndarray, shift: float) -> np.ndarray:
    """Make every pixel `shift` grey levels brighter (darker if negative); clipped, dtype kept."""
    return _clipped(image + np.float32(shift), image.dtype)


def _clipped(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
