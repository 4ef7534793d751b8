"""A synthetic stack of neuropil, as a serial-section electron microscope (ssTEM) shows it, with its labels.

It is there to try the pipeline without data of one's own or a download. unet/inputs/tissue.py makes the cells and their
walls; this module fills, photographs and writes them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy import ndimage as ndi

from unet.inputs.stacks import LABELS, TEST, VOLUME, write_stack
from unet.inputs.tissue import Array, Look, Rng, Section, cut_section, label_section, move_cells, smooth_noise
from utils import UserError, file_hash, read_json, write_json

DEMO_FILES = (VOLUME, LABELS, TEST, "test-labels.tif", "test-cells.tif")
DEMO_MARK = "demo.json"  # beside the stacks: their hashes, so that no other files are taken for them
Mitochondria = list[SimpleNamespace]  # as `draw_mitochondria` makes them


def draw_mitochondria(radii: Array, cells: Array, slices: int, rng: Rng) -> Mitochondria:
    """Draw random ellipsoids that travel with large discs; lengths in px, z in sections, brightness in grey levels."""
    mitochondria = []
    for disc, radius in enumerate(radii.mean(0)):
        for _ in range(rng.poisson(slices / 16) if radius > 17 else 0):
            short = np.clip(rng.uniform(0.45, 0.8) * radius, 10, 32)
            mitochondria.append(SimpleNamespace(
                disc=disc, cell=cells[disc], offset=rng.normal(0, 0.22, 2) * radius,
                axes=short * np.array([rng.uniform(1.0, 1.8), 1]), angle=rng.uniform(0, np.pi),
                middle=rng.uniform(-3, slices + 3), length=rng.uniform(2.5, 9), pitch=rng.uniform(4.6, 7.5),
                dark=rng.uniform(52, 84), cristae=rng.uniform(12, 44)))
    return mitochondria


def elliptic(window: tuple[slice, slice], centre: Array, axes: Sequence[float], angle: float) -> tuple[Array, Array]:
    """Return the elliptic radius (1 on the outline) and px across the long axis, (h, w), in a window (slice, slice)."""
    y, x = (grid - c for grid, c in zip(np.ogrid[window], centre, strict=True))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.hypot(along / axes[0], across / axes[1]), across


def add_mitochondrion(darkness: Array, mitochondrion: SimpleNamespace, z: int, centre: Array, section: Section,
                      waves: Array) -> None:
    """Add to `darkness` (H, W), grey levels, in place: a double border, a dark matrix, lighter cristae (its folds).

    `waves` (3, H, W), unit noise, bends the outline and the cristae and breaks the cristae. The mitochondrion stays
    off the membrane of its own cell.
    """
    axes = mitochondrion.axes * np.sqrt(max(0, 1 - ((z - mitochondrion.middle) / mitochondrion.length) ** 2))
    low = np.clip(centre - axes[0] - 8, 0, darkness.shape).astype(int)
    high = np.clip(centre + axes[0] + 9, 0, darkness.shape).astype(int)
    if (low >= high).any() or axes[1] < 0.45 * mitochondrion.axes[1]:  # tips are too small to recognise
        return
    window = slice(low[0], high[0]), slice(low[1], high[1])
    bend, sway, gaps = waves[(slice(None), *window)]
    radius, across = elliptic(window, centre, axes, mitochondrion.angle)
    depth = (1 - radius) * axes[1] + 1.5 * bend
    room = np.where(section.owner[window] == mitochondrion.cell, section.distance[window] - 6, -6)
    depth = np.where(room > -3, ndi.gaussian_filter(np.minimum(depth, room), 1.5), -6)
    lines = ((38, 1.2), (-23, 3.0), (27, 4.8))  # (grey levels, depth in px): outer membrane, gap, inner membrane
    border = sum(contrast * np.exp(-((depth - at) ** 2)) for contrast, at in lines)
    stripes = np.sin(2 * np.pi * across / mitochondrion.pitch + 1.6 * bend + 1.6 * sway)
    cristae = np.clip(stripes, -0.5, 1) * np.clip(depth - 4.5, 0, 1) * np.clip(0.35 + 0.9 * gaps, 0, 1.3)
    matrix = np.clip(depth + 0.5, 0, 1) * (mitochondrion.dark - mitochondrion.cristae * cristae)
    darkness[window] = np.maximum(darkness[window], matrix + np.clip(depth + 1.5, 0, 1) * border)


def draw_organelles(room: Array, rng: Rng) -> Array:
    """Return how much vesicles, flat sacs and microtubules darken a section, grey levels (H, W).

    `room` (H, W) is the distance to the nearest wall, px.
    """
    edge = 24  # width of a frame around the image: its edge cuts through rings
    room = np.pad(room, edge, mode="reflect")
    darkness = np.zeros(room.shape)
    for _ in range(rng.poisson(room.size / 4200)):
        cluster = rng.uniform(0, room.shape, 2)
        for _ in range(rng.integers(1, 12)):
            short = rng.uniform(2.3, 4.2) if rng.random() < 0.9 else rng.uniform(4.5, 7.0)
            long = short * rng.uniform(1, 1.4) if rng.random() < 0.9 else rng.uniform(8, 16)
            strength, angle = rng.uniform(40, 95), rng.uniform(0, np.pi)
            centre = np.clip(cluster + rng.normal(0, 14, 2), edge, np.array(room.shape) - edge - 1)
            if room[tuple(centre.astype(int))] > 0.5 * (short + long) + 3:
                window = tuple(slice(int(c) - edge + 2, int(c) + edge - 2) for c in centre)
                depth = (1 - elliptic(window, centre, (long, short), angle)[0]) * short
                ring = strength * np.exp(-(depth**2) / 1.3)  # a line 2 px wide
                np.maximum(darkness[window], ring, out=darkness[window])
    darkness[room < 2] = 0
    microtubules = (rng.random(room.shape) < 1 / 260) * rng.uniform(150, 700, room.shape) * (room > 3)
    return (darkness + ndi.gaussian_filter(microtubules, 1.2))[edge:-edge, edge:-edge]


def expose(tissue: Array, look: Look, rng: Rng) -> Array:
    """Return the camera's image, uint8 (H, W), of a section's grey levels (H, W), with drift, blur and shot noise."""
    gain = np.exp(rng.normal(0, look.slice_gain) + 0.04 * smooth_noise(tissue.shape, 110, rng))
    middle = look.cytoplasm - 35  # the grey between membrane and cytoplasm that a change of contrast leaves as it is
    shift = rng.normal(0, look.slice_shift) + look.drift * smooth_noise(tissue.shape, 90, rng)
    grey = ndi.gaussian_filter(middle + shift + (tissue - middle) * gain, rng.uniform(*look.blur))
    shot = look.noise * np.sqrt(np.clip(grey, 20, None) / 128) * rng.standard_normal(tissue.shape)
    return np.clip(np.round(grey + ndi.gaussian_filter(shot, 0.58)), 0, 255).astype(np.uint8)


def mitochondria_darkness(section: Section, z: int, mitochondria: Mitochondria, centres: Array, rng: Rng) -> Array:
    """Return how much mitochondria darken section `z`, grey levels (H, W); `centres` (n, 2) are those of the discs."""
    darkness = np.zeros(section.owner.shape)
    waves = np.stack([smooth_noise(darkness.shape, scale, rng) for scale in (6, 10, 3.5)])
    for mitochondrion in mitochondria:
        centre = centres[mitochondrion.disc] + mitochondrion.offset
        add_mitochondrion(darkness, mitochondrion, z, centre, section, waves)
    return darkness


def fill_section(section: Section, darkness: Array, shades: Array, look: Look, rng: Rng) -> Array:
    """Return a section in grey levels, float (H, W), from the mitochondria's darkness (H, W) and a shade per cell."""
    tissue = look.cytoplasm + shades[section.owner] - darkness
    tissue -= draw_organelles(np.where(darkness > 3, 0, section.distance), rng)
    tissue += sum(grey * smooth_noise(darkness.shape, scale, rng) for scale, grey in look.mottle)
    strength = np.clip(0.93 + 0.11 * smooth_noise(darkness.shape, 22, rng), 0.7, 1.15)
    return tissue - look.membrane * strength * section.density


def demo_sections(slices: int, size: int, rng: Rng, look: Look) -> Iterator[tuple[Array, Array, Array]]:
    """Yield each section: its instance map int32, labels uint8, tissue in grey levels, all (size, size)."""
    levels = slices * look.thickness
    positions, radii, cells = move_cells(levels, size + 2 * look.margin, look, rng)
    positions -= look.margin
    shades = rng.normal(0, look.shade, cells[-1] + 1)
    mitochondria = draw_mitochondria(radii, cells, slices, rng)
    bends = np.zeros((levels, 2, size, size), np.float32)
    for (scale, amplitude), axis in product(look.warp, (0, 1)):
        scales = 4 * look.thickness, scale, scale
        bends[:, axis] += amplitude * smooth_noise((levels, size, size), scales, rng)
    for z in range(slices):
        its_levels = slice(z * look.thickness, (z + 1) * look.thickness)
        section = cut_section((positions[its_levels], radii[its_levels], cells), bends[its_levels], look, rng)
        centres = positions[its_levels][look.thickness // 2]
        darkness = mitochondria_darkness(section, z, mitochondria, centres, rng)
        yield section.owner, label_section(section, look), fill_section(section, darkness, shades, look, rng)


def demo_stack(slices: int = 30, size: int = 384, seed: int = 0) -> tuple[Array, Array, Array]:
    """Make a synthetic stack: images and labels, both uint8 (slices, size, size); 0 = membrane, 255 = cell.

    Also return the true cells, uint16 of that shape: 0 = membrane, each cell has the same number through the stack.
    """
    rng, look = np.random.default_rng(seed), Look()
    images, labels = (np.empty((slices, size, size), np.uint8) for _ in range(2))
    cells = np.empty(images.shape, np.uint16)
    for z, (owner, label, tissue) in enumerate(demo_sections(slices, size, rng, look)):
        images[z], labels[z] = expose(tissue, look, rng), label
        cells[z] = np.where(label, owner + 1, 0)
    return images, labels, cells


# ------------------------------------------------------------------------------------------------ the folder


def demo_files(folder: Path) -> list[Path]:
    """Return the stacks of a folder that are as `make_demo` wrote them, by the hashes that it saved."""
    try:
        hashes = read_json(folder / DEMO_MARK, "", ("files",))["files"]
    except UserError:  # no demo was made here
        return []
    return [path for name in DEMO_FILES if (path := folder / name).is_file() and file_hash(path) == hashes.get(name)]


def make_demo(folder: Path, slices: int = 30, test_slices: int = 10, size: int = 384, seed: int = 0) -> list[Path]:
    """Write {train,test}-{volume,labels}.tif, uint8 (N, size, size), to `folder`, and DEMO_MARK; return the paths.

    test-cells.tif, uint16, has the true cells, the same number through the stack. The test stack follows the other
    in z. Raises UserError if the folder has stacks that this function did not make.
    """
    folder = Path(folder)
    ours = demo_files(folder)
    foreign = [name for name in DEMO_FILES if (folder / name).exists() and folder / name not in ours]
    if foreign:
        raise UserError(f"{folder} has {' and '.join(foreign)} already, not made by 'python datasets.py demo', and "
                        "nothing was replaced; move what is there away, or name another folder with --data")
    folder.mkdir(parents=True, exist_ok=True)
    images, labels, cells = demo_stack(slices + test_slices, size, seed)
    stacks = (images[:slices], labels[:slices], images[slices:], labels[slices:], cells[slices:])
    with tempfile.TemporaryDirectory(dir=folder, prefix=".demo-") as temporary:
        files = [Path(temporary) / name for name in DEMO_FILES]
        for file, stack in zip(files, stacks, strict=True):
            write_stack(file, stack)
        for path in ours:
            path.unlink()
        # the mark comes first: if this stops between two files, the next call recognises them
        write_json(folder / DEMO_MARK, {"seed": seed, "files": {file.name: file_hash(file) for file in files}})
        return [file.replace(folder / file.name) for file in files]
