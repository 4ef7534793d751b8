"""Pixel sizes, read from and written to TIFF tags and ImageJ's and OME's metadata, always in micrometres."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import tifffile

MICROMETRES = {"µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
               "micrometre": 1.0, "nm": 1e-3, "nanometer": 1e-3, "å": 1e-4, "pm": 1e-6, "mm": 1e3, "millimeter": 1e3,
               "cm": 1e4, "centimeter": 1e4, "m": 1e6, "meter": 1e6, "inch": 25400.0, "in": 25400.0}
TAG_UNITS = {2: "inch", 3: "cm"}  # values of the tag ResolutionUnit
LARGEST_PIXEL = 10.0  # µm: a larger one in inches, or in a bare resolution tag, is a printer's, not a microscope's


@dataclass(frozen=True)
class Voxel:
    """Size of a pixel and distance of slices, µm; `z` is None if it is not known."""

    y: float
    x: float
    z: float | None = None

    def describe(self) -> str:
        """Return the size of a pixel in words, for the console and messages."""
        return f"{self.y:.4g} µm" if math.isclose(self.y, self.x, rel_tol=1e-3) else f"{self.y:.4g} x {self.x:.4g} µm"

    def times(self, other: Voxel) -> float:
        """Return the ratio of this pixel's side to another's: magnifying by it gives images the other's pixel size."""
        return math.sqrt(self.y * self.x / (other.y * other.x))

    def as_json(self) -> dict:
        """Return a dict for config.json and manifests; `Voxel(**content)` is the inverse."""
        return asdict(self)


def in_micrometres(value: object, unit: object) -> float | None:
    """Convert a length to µm; return None if it is not a positive number or its unit is not known."""
    try:
        length = float(value) * MICROMETRES[str(unit).strip().lower()]
    except (KeyError, TypeError, ValueError):
        return None
    return length if 0 < length < math.inf else None


def voxel_of_tiff(tiff: tifffile.TiffFile) -> Voxel | None:
    """Return the pixel size in an open TIFF's OME or ImageJ metadata or resolution tags; None if they have none."""
    if tiff.is_ome:
        return _of_ome(tiff.ome_metadata)
    tags, metadata = tiff.pages[0].tags, tiff.imagej_metadata or {}
    unit = metadata.get("unit") or TAG_UNITS.get(tags.valueof("ResolutionUnit"))
    y, x = (in_micrometres(_inverse(tags.valueof(name)), unit) for name in ("YResolution", "XResolution"))
    if y is None or x is None or (max(y, x) > LARGEST_PIXEL and ("unit" not in metadata or unit == "inch")):
        return None
    return Voxel(y, x, in_micrometres(metadata.get("spacing"), unit))


def tiff_tags(voxel: Voxel | None, flavour: str, axes: str) -> dict:
    """Return arguments of `tifffile.imwrite` that write axes and pixel size as `flavour`, 'imagej' or 'ome', does."""
    metadata: dict = {"axes": axes}
    if voxel is None:
        return {"metadata": metadata}
    if flavour == "ome":
        lengths = {axis: length for axis, length in zip("ZYX", (voxel.z, voxel.y, voxel.x), strict=True) if length}
        return {"metadata": {**metadata, **{f"PhysicalSize{axis}": length for axis, length in lengths.items()},
                             **{f"PhysicalSize{axis}Unit": "µm" for axis in lengths}}}
    metadata |= {"unit": "um", **({"spacing": voxel.z} if voxel.z else {})}
    return {"metadata": metadata, "resolution": (1 / voxel.x, 1 / voxel.y)}


def _of_ome(text: str | None) -> Voxel | None:
    """Return the pixel size of the first image in OME's XML; None if it has none."""
    try:
        image = tifffile.xml2dict(text)["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list | tuple) else image)["Pixels"]
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError):
        return None
    z, y, x = (in_micrometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
               for axis in "ZYX")
    return Voxel(y, x, z) if y and x else None


def _inverse(resolution: object) -> float | None:
    """Return the length of a pixel from a resolution, which TIFF stores as two whole numbers: pixels per lengths."""
    try:
        pixels, lengths = resolution
        return lengths / pixels
    except (TypeError, ValueError, ZeroDivisionError):
        return None
