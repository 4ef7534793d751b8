"""The data's doctor: reads a folder and says in plain words what is there, what that means and how to fix it.

    python datasets.py check DIR

Each `check_...` looks at pages alone, arrays or read one at a time; `examine` opens a folder of stacks and calls them
all, whatever is broken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from skimage.measure import label

from unet.inputs.findings import Finding, listed, shorten
from unet.inputs.gaps import find_gaps
from unet.inputs.lazy import Each, mean_and_sd, tally
from unet.inputs.stacks import GET_DATA, LABELS, TEST, VOLUME, nearly_named, padding
from unet.inputs.tiffs import TiffPages
from utils import UserError

FEW_SLICES = 5  # fewer leave little to learn from and next to nothing to judge with
THIN_MEMBRANE = 0.03  # share of the pixels; ISBI's is .22
LEAK_SHARE = 0.5  # of a slice in one piece: cells run together there; ISBI's largest cell has .13
WALLED = 30  # slices that tell whether membranes are drawn in all
STANDS_OUT = 4.0  # robust standard deviations from the median slice
SAVE = "File > Save As > Tiff"
INVERT = (f"Fiji: Edit > Invert, then {SAVE}; where Fiji shows cells white already, Image > Lookup Tables > Invert LUT "
          "before it")
DELETE = "Fiji: Image > Stacks > Delete Slice, in the images and in the labels alike"
UNDRAWN = "Draw its membranes, or delete it from both stacks, Fiji: Image > Stacks > Delete Slice"
DRAW = "Fiji: look there and draw the membrane with 0 (Paintbrush tool)"
COMPARE = "Fiji: Analyze > Tools > Synchronize Windows shows whether one is flipped, shifted, cropped or reordered"

Pages = Sequence[np.ndarray]  # a stack (N, H, W), as an array or read a page at a time
Walls = Callable[[Iterable[np.ndarray]], bool]  # whether labels, 0 or False = membrane, are cells between thin walls


# ------------------------------------------------------------------------------------------------------ images


def check_pixels(name: str, stack: Pages) -> list[Finding]:
    """Size, type and range of images or labels (N, H, W[, C]); colours, and pixels that are not numbers."""
    size = f"{len(stack)} slices of {stack.shape[1]} x {stack.shape[2]} pixels (y, x), {stack.dtype}"
    ends = np.array([(page.min(), page.max(), np.isfinite(page).all()) for page in stack])
    notes = [Finding("ok", f"{name}: {size}, values {ends[:, 0].min().item():g} to {ends[:, 1].max().item():g}")]
    fix = f"Fiji: Image > Type > 8-bit, then {SAVE}"
    if stack.ndim == 4:
        notes.append(Finding("problem", f"{name} has {stack.shape[3]} colour channels", "Training takes one.", fix))
    lost = np.flatnonzero(ends[:, 2] == 0)
    if lost.size:
        notes.append(Finding("problem", f"{name} has pixels that are not numbers, in slices {listed(lost)}",
                             "One of them spoils all of the network.", fix))
    return notes


def check_images(name: str, images: Pages) -> list[Finding]:
    """Bit depth, padding, brightness, and two values only, of gray images (N, H, W)."""
    notes = []
    if images.dtype not in (np.uint8, bool):
        used = max(int(image.max()) for image in images).bit_length() if images.dtype.kind in "ui" else 0
        bits = f", of which {used} bits are used" if used else ""
        notes.append(Finding("note", f"{name}: {images.dtype}{bits}", "Each slice is brought to one mean and contrast "
                             "from its own depth. Nothing needs to be done."))
    shares = np.array([padding(image).mean() for image in images])
    if shares.any():
        notes.append(Finding("note", f"{name}: slices {listed(np.flatnonzero(shares))} are filled up at their border, "
                             f"up to {shares.max():.0%} of a slice", "These pixels do not count for brightness and "
                             "contrast. Nothing needs to be done."))
    values = len(tally(images, 2)[0])
    if values <= 2:
        only = "two values only, as labels have" if values == 2 else "one value only"
        notes.append(Finding("problem", f"{name} has {only}", "Nothing can be learnt from it.",
                             "Copy the microscope's images; perhaps images and labels were swapped"))
    return notes + check_brightness(name, images)


def check_brightness(name: str, images: Pages) -> list[Finding]:
    """Mean and standard deviation (sd) of every slice of images (N, H, W), and the slices that stand out."""
    means, sds = np.array([(image.mean(dtype=float), image.std(dtype=float)) for image in images]).T
    numbers = shorten([f"{mean:.4g}±{sd:.3g}" for mean, sd in zip(means, sds, strict=True)], 60, " ")
    notes = [Finding("ok", f"{name}: brightness of each slice, mean±sd: {numbers}")]
    odd: dict[int, list[str]] = {}
    for word, values in (("brightness", means), ("contrast", sds)):
        distance = np.abs(values - np.median(values))
        usual = max(STANDS_OUT * 1.4826 * np.median(distance), np.median(sds) / 2)
        for number in np.flatnonzero(distance > usual).tolist():
            odd.setdefault(number, []).append(word)
    if odd:
        slices = shorten([f"slice {number} ({' and '.join(words)})" for number, words in sorted(odd.items())], 8)
        notes.append(Finding("warning", f"{name}: slices that stand out: {slices}; the usual is {np.median(means):.4g}±"
                             f"{np.median(sds):.3g}", "Each slice is brought to one mean and contrast; what "
                             "was overexposed, faint or covered by dirt stays so.", "Look at them; " + DELETE))
    return notes


def check_slices(name: str, stack: Pages) -> list[Finding]:
    """Slices of one value, and slices that are there more than once, in a stack (N, H, W)."""
    notes = []
    empty = np.flatnonzero([page.min() == page.max() for page in stack])
    if empty.size:
        notes.append(Finding("warning", f"{name}: empty slices, of one value only: {listed(empty)}",
                             "They teach that nothing is to be seen.", DELETE))
    groups = [listed(group) for group in _alike(stack).values() if len(group) > 1 and group[0] not in empty]
    if groups:
        notes.append(Finding("warning", f"{name}: identical slices: {shorten(groups, 6, '; ')}", "A copy among the "
                             "held-out slices makes the score look better than it is.", DELETE))
    return notes


def _alike(stack: Pages) -> dict[bytes, list[int]]:
    groups: dict[bytes, list[int]] = {}
    for number, page in enumerate(stack):
        groups.setdefault(hashlib.sha256(np.ascontiguousarray(page)).digest(), []).append(number)
    return groups


# ------------------------------------------------------------------------------------------------------ labels


def check_labels(labels: Pages, thin_walls: Walls) -> list[Finding]:
    """Whether labels (N, H, W) are 0 = membrane and 255 (or 1) = cell in every slice, and the share of membrane."""
    values, counts = tally(labels)
    shown = shorten([f"{value.item():g}" for value in values[:7]], 6)
    if len(values) == 1:
        return [Finding("problem", f"{LABELS}: every pixel is {shown}", "There is nothing to learn.",
                        "Draw the membranes as 0 on cells of 255, or copy the right file")]
    if len(values) == 2 and values[0] == 0 and values[1] in (1, 255):
        notes = [Finding("ok", f"{LABELS}: two values, 0 = membrane and {values[1].item():g} = cell")]
    else:
        reason = "" if len(values) == 2 else "; perhaps every cell has its own number, or this is an image"
        if reason and _soft(values, counts):
            reason = "; edges were softened, as JPEG or scaling does"
        notes = [Finding("problem", f"{LABELS}: {len(values)} values ({shown}){reason}", "Training wants two values, "
                         "0 = membrane and 255 = cell, or 0, 1, 2, ... with --classes, here and in augmentation.py.",
                         f"Fiji: Image > Adjust > Threshold..., Apply, then {SAVE}")]
    cells = as_cells(labels)
    membrane = np.array([1 - cell.mean() for cell in cells])
    empty, full = membrane == 1, membrane == 0
    others = few(np.flatnonzero(~empty & ~full), WALLED)
    if empty.any() and len(others) and not thin_walls(cells[number] for number in others):
        notes.append(Finding("note", f"{LABELS}: no object in slices {listed(np.flatnonzero(empty))}",
                             "Labels are objects on background, which may be absent. Nothing needs to be done."))
        empty[:] = False
    if (empty | full).any():
        undrawn = listed(np.flatnonzero(empty | full))
        notes.append(Finding("problem", f"{LABELS}: of one value all over: slices {undrawn}",
                             "Nobody drew there: it would teach and judge wrongly.", UNDRAWN))
    covers = f"membrane is {membrane.mean():.1%} of all pixels, by slice {membrane.min():.1%} to {membrane.max():.1%}"
    if membrane.mean() < THIN_MEMBRANE:
        return [*notes, Finding("warning", f"{LABELS}: {covers}", "Such thin lines are hard to learn.",
                                "Fiji: Process > Filters > Minimum..., radius 1, makes them thicker")]
    return [*notes, Finding("ok", f"{LABELS}: {covers}")]


def _soft(values: np.ndarray, counts: np.ndarray) -> bool:
    place = (values.astype(float) - values[0]) / max(float(values[-1] - values[0]), 1e-6)
    return counts[(place < 0.1) | (place > 0.9)].sum() > 0.6 * counts.sum()  # most pixels are nearly black or white


def as_cells(labels: Pages) -> Each:
    """True where labels say cell, be they two-valued, soft at their edges, or a number for every cell."""
    values, counts = tally(labels)
    least = (float(values[0]) + float(values[-1])) / 2 if _soft(values, counts) else values[0]
    return Each(labels, lambda label: label > least, bool)


def separate_objects(cells: Pages, thin_walls: Walls) -> bool:
    """Whether cells, bool (H, W) each, are objects on background, and neither between membranes nor inverted ones."""
    numbers = few([number for number, cell in enumerate(cells) if cell.any() and not cell.all()])
    some = [cells[number] for number in numbers]
    return some != [] and not thin_walls(some) and not thin_walls([~cell for cell in some])


def few(numbers: Sequence[int], least: int = 5) -> Sequence[int]:
    """At least so many of the slices' numbers, fewer than twice as many, at even distances: they tell enough."""
    return numbers[::max(1, len(numbers) // least)]


def check_polarity(images: Pages, cells: Pages, name: str = LABELS) -> list[Finding]:
    """Whether membrane and cell look swapped: membrane is most of the area, or brighter than the cells."""
    sums = np.zeros((2, 2))  # pixels, and their grey levels: of membranes, of cells
    for image, cell in zip(images, cells, strict=True):
        sums += np.stack([np.bincount(cell.ravel(), minlength=2), np.bincount(cell.ravel(), image.ravel(), 2)], axis=1)
    if not sums[:, 0].all():
        return []
    share, (border, inside) = sums[0, 0] / sums[:, 0].sum(), sums[:, 1] / sums[:, 0]
    signs = [f"is {share:.0%} of the pixels"] * bool(share > 0.5)
    if border - inside > 0.1 * mean_and_sd(images)[1]:
        signs.append(f"lies on brighter pixels than the cells (mean {border:.4g} against {inside:.4g})")
    if not signs:
        return []
    return [Finding("problem" if len(signs) == 2 else "warning",
                    f"{name} look inverted: membrane (0) {' and '.join(signs)}", "The prediction would show cells "
                    "where membranes are. With a stain that glows, bright membranes are right.", INVERT)]


def pixel_step(count: int) -> int:
    """How many pixels to go on, down and across, so that 200 000 of so many are left: they tell enough."""
    return max(1, round((count / 200_000) ** 0.5))


def polarity_notes(images: Sequence[np.ndarray], labels: Sequence[np.ndarray], name: str = LABELS) -> list[str]:
    """A sentence where labels (H, W), 0 = membrane, look inverted; of few pixels each, see `pixel_step`.

    Of images (H, W) or (H, W, 3); `name` is what to call the labels.
    """
    grey = np.concatenate([(one if one.ndim == 2 else one.mean(axis=2)).ravel() for one in images])
    cells = as_cells([np.concatenate([label.ravel() for label in labels])])
    return [f"{finding.what}; {finding.remedy}" for finding in check_polarity([grey], cells, name)]


def check_pairs(images: Pages, cells: Pages) -> list[Finding]:
    """Slices (N, H, W) whose labels do not fit their image: membrane and cell differ less than in the others."""
    contrasts = np.full(len(images), np.nan)  # stays where there is nothing to compare
    for number, (image, cell) in enumerate(zip(images, cells, strict=True)):
        if cell.any() and not cell.all() and image.std():
            contrasts[number] = (image[cell].mean() - image[~cell].mean()) / image.std()
    if np.isnan(contrasts).all():
        return []
    usual = np.nanmedian(contrasts)
    if abs(usual) < 0.2:
        return [Finding("warning", f"{LABELS} do not fit {VOLUME}: membranes are as bright as cells", "Labels that lie "
                        "elsewhere than the membranes cannot be learnt.", COMPARE)]
    odd = np.flatnonzero(contrasts / usual < 0.25)
    return [Finding("warning", f"{LABELS}: slices whose labels do not fit their image: {listed(odd)}",
                    "They teach the network what is not there.", COMPARE)] if odd.size else []


def check_cells(cells: Pages, images: Pages | None = None) -> list[Finding]:
    """Cells (N, H, W) that are not closed: a piece that is too large, or a gap of one or two pixels."""
    notes = []
    shares = np.array([np.bincount(label(cell, connectivity=1).flat)[1:].max(initial=0) / cell.size for cell in cells])
    leaking = np.flatnonzero((shares > LEAK_SHARE) & (shares < 1))
    if leaking.size:
        notes.append(Finding("warning", f"{LABELS}: one cell covers up to {shares.max():.0%} of a slice, in slices "
                             f"{listed(leaking)}", "Cells that are not closed count as one.", DRAW))
    gaps = [f"slice {number} at y {y}, x {x}" for number, cell in enumerate(cells)
            for y, x in find_gaps(cell, None if images is None else images[number])]
    return notes + gap_notes(gaps, images is not None) or [Finding("ok", f"{LABELS}: cells are closed")]


def gap_notes(gaps: list[str], seen: bool = True, name: str = LABELS) -> list[Finding]:
    """What there is to say of gaps in the labels called `name`, each a place in words; `seen` in the image, too."""
    if not gaps:
        return []
    kind = "the membrane seems to have gaps" if seen else "narrow places, gaps or thin necks"
    return [Finding("warning", f"{name}: {kind}: {shorten(gaps, 10, '; ')}", "Two large cells join there over one or "
                    f"two pixels{', though the image is dark' * seen}. The score punishes one such gap more than many "
                    "wrong pixels.", f"{DRAW}; a cell's true neck may stay")]


# ---------------------------------------------------------------------------------------------- several stacks


def check_counts(images: Pages, labels: Pages) -> list[Finding]:
    """Whether every image (N, H, W) has its label on the same pixels, and whether they are enough."""
    notes = []
    sizes = [f"{len(stack)} slices of {stack.shape[1]} x {stack.shape[2]} pixels" for stack in (images, labels)]
    if sizes[0] != sizes[1]:
        notes.append(Finding("problem", f"{VOLUME} has {sizes[0]} but {LABELS} {sizes[1]}",
                             "Every image needs its label, in the same order and on the same pixels.", COMPARE))
    if len(images) < FEW_SLICES:
        count = f"{len(images)} slices are few" if len(images) > 1 else "one slice is little"
        notes.append(Finding("warning", f"{VOLUME}: {count}", "The network learns less, and held-out ones say little "
                             "of how good it is.", "Label more slices; 20 to 30 serve well"))
    return notes


def check_test(images: Pages, test: Pages) -> list[Finding]:
    """Whether the stack to segment (M, H, W) looks like the training images and has none of them."""
    known = _alike(images)
    shared = [number for digest, group in _alike(test).items() if digest in known for number in group]
    notes = []
    if shared:
        notes.append(Finding("warning", f"{TEST}: slices that are training images too: {listed(shared)}", "How well "
                             "they are segmented says nothing of new images.", "Put the stack to segment there"))
    (mean, sd), (its_mean, its_sd) = mean_and_sd(images), mean_and_sd(test)
    sd = max(sd, 1e-6)
    if images.dtype == test.dtype and (abs(its_mean - mean) > sd / 2 or not 0.67 < its_sd / sd < 1.5):
        notes.append(Finding("warning", f"{TEST} looks other than {VOLUME}: {its_mean:.0f}±{its_sd:.0f} against "
                             f"{mean:.0f}±{sd:.0f}", "Brightness and contrast are levelled slice by slice; "
                             "other noise, stain or magnification are not.",
                             "Look whether both come from one microscope, at one magnification"))
    return notes


# -------------------------------------------------------------------------------------------------- the folder


def examine(folder: Path, thin_walls: Walls | None) -> list[Finding]:
    """All that is found in a folder of stacks; goes on after a broken file. Raises UserError where it is no folder.

    Without `thin_walls` labels are taken as classes, and nothing is said of cells.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; {GET_DATA}")
    others = sorted(path.name for path in folder.iterdir() if path.name not in (VOLUME, LABELS, TEST))
    notes = [Finding("ok", f"not read: {shorten(others, 8)}")] if others else []
    notes.append(Finding("note", "Slices are counted from 0, as --holdout counts them; Fiji counts from 1"))
    stacks = {}
    for name in (VOLUME, TEST, LABELS):
        stacks[name], news = _open(folder / name)
        notes += news
        if stacks[name] is not None:
            notes += check_slices(name, stacks[name]) + (check_images(name, stacks[name]) if name != LABELS else [])
    images, test, labels = stacks.values()
    if images is not None and labels is not None:
        notes += check_counts(images, labels)
    if labels is not None and thin_walls:
        pair = images is not None and images.shape == labels.shape
        cells = as_cells(labels)
        notes += check_labels(labels, thin_walls) + check_cells(cells, images if pair else None)
        polarity = check_polarity(images, cells) if pair else []
        notes += [] if polarity and separate_objects(cells, thin_walls) else polarity
        notes += check_pairs(images, cells) if pair else []
    return notes + (check_test(images, test) if images is not None and test is not None else [])


def _open(path: Path) -> tuple[Each | None, list[Finding]]:
    """The stack (N, H, W) of a file, or None where it can't be read, and what there is to say of it."""
    if not path.is_file():
        near = nearly_named(path)
        return None, [Finding("problem", f"{path.name} is missing", "All three files are needed.", f"Rename {near}, "
                              f"or save it as TIFF from Fiji: {SAVE}" if near else f"Put it into {path.parent}")]
    try:
        stack = TiffPages(path)
        notes = check_pixels(f"{path.name} ({path.stat().st_size / 1e6:.3g} MB)", stack)
    except (UserError, OSError) as error:
        what, _, remedy = str(error).replace(f"{path}", path.name).partition("; ")
        return None, [Finding("problem", what, "Nothing of it can be used.", remedy or "Allow yourself to read it")]
    return Each(stack, _plain, stack.dtype), notes


def _plain(page: np.ndarray) -> np.ndarray:
    """A page (H, W) of numbers; of colours the first channel: it tells enough for the other checks."""
    page = page[..., 0] if page.ndim == 3 else page
    return np.nan_to_num(page, posinf=0, neginf=0) if page.dtype.kind == "f" else page
