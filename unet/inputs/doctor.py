"""The data's doctor: reads a folder and reports in plain words what it holds, what that means and how to fix it.

    python datasets.py check DIR

Each `check_...` needs only pages, as an array or read one at a time; `examine` opens a folder of stacks and runs all
checks, even if a file is broken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from skimage.measure import label

from unet.inputs.findings import Finding, list_slices, shorten
from unet.inputs.gaps import find_gaps
from unet.inputs.lazy import ConvertedPages, mean_and_sd, tally
from unet.inputs.stacks import GET_DATA, LABELS, TEST, VOLUME, nearly_named, padding
from unet.inputs.tiffs import TiffPages
from utils import UserError

FEW_SLICES = 5  # fewer are too few to learn from and to score with
THIN_MEMBRANE = 0.03  # share of the pixels; ISBI's is .22
LEAK_SHARE = 0.5  # share of a slice that is one piece: cells run together there; ISBI's largest cell has .13
WALL_SLICES = 30  # slices that are enough to tell whether all have membranes
STANDS_OUT = 4.0  # robust standard deviations from the median slice
SAVE = "File > Save As > Tiff"
INVERT = (f"Fiji: Edit > Invert, then {SAVE}; if Fiji already shows cells in white, first Image > Lookup Tables > "
          "Invert LUT")
DELETE = "Fiji: Image > Stacks > Delete Slice, in both the images and the labels"
DRAW_OR_DELETE = "Draw its membranes, or delete it from both stacks, Fiji: Image > Stacks > Delete Slice"
DRAW = "Fiji: look there and draw the membrane with 0 (Paintbrush tool)"
COMPARE = "Fiji: Analyze > Tools > Synchronize Windows shows whether one is flipped, shifted, cropped or reordered"

Slices = Sequence[np.ndarray]  # a stack (N, H, W), as an array or read a page at a time
Walls = Callable[[Iterable[np.ndarray]], bool]  # tells whether labels, 0 or False = membrane, are cells in thin walls


# ------------------------------------------------------------------------------------------------------ images


def check_pixels(name: str, stack: Slices) -> list[Finding]:
    """Report size, type and range of images or labels (N, H, W[, C]); colours, and pixels that are not numbers."""
    size = f"{len(stack)} slices of {stack.shape[1]} x {stack.shape[2]} pixels (y, x), {stack.dtype}"
    ends = np.array([(page.min(), page.max(), np.isfinite(page).all()) for page in stack])
    notes = [Finding("ok", f"{name}: {size}, values {ends[:, 0].min().item():g} to {ends[:, 1].max().item():g}")]
    fix = f"Fiji: Image > Type > 8-bit, then {SAVE}"
    if stack.ndim == 4:
        notes.append(Finding("problem", f"{name} has {stack.shape[3]} colour channels", "Training takes one.", fix))
    invalid = np.flatnonzero(ends[:, 2] == 0)
    if invalid.size:
        notes.append(Finding("problem", f"{name} has pixels that are not numbers, in slices {list_slices(invalid)}",
                             "A single one spoils the whole network.", fix))
    return notes


def check_images(name: str, images: Slices) -> list[Finding]:
    """Report bit depth, padding and brightness of grey images (N, H, W), and images of only one or two values."""
    notes = []
    if images.dtype not in (np.uint8, bool):
        bits = max(int(image.max()) for image in images).bit_length() if images.dtype.kind in "ui" else 0
        usage = f", of which {bits} bits are used" if bits else ""
        notes.append(Finding("note", f"{name}: {images.dtype}{usage}", "Each slice is normalised to the same mean and "
                             "contrast, at its full bit depth. You need not do anything."))
    shares = np.array([padding(image).mean() for image in images])
    if shares.any():
        notes.append(Finding("note", f"{name}: slices {list_slices(np.flatnonzero(shares))} are padded at their "
                             f"border, up to {shares.max():.0%} of a slice", "These pixels do not count for brightness "
                             "and contrast. You need not do anything."))
    values = len(tally(images, 2)[0])
    if values <= 2:
        content = "only two values, as labels have" if values == 2 else "only one value"
        notes.append(Finding("problem", f"{name} has {content}", "Nothing can be learnt from it.",
                             "Copy the microscope's images; perhaps images and labels were swapped"))
    return notes + check_brightness(name, images)


def check_brightness(name: str, images: Slices) -> list[Finding]:
    """Report mean and standard deviation (sd) of every slice of images (N, H, W), and the slices that stand out."""
    means, sds = np.array([(image.mean(dtype=float), image.std(dtype=float)) for image in images]).T
    numbers = shorten([f"{mean:.4g}±{sd:.3g}" for mean, sd in zip(means, sds, strict=True)], 60, " ")
    notes = [Finding("ok", f"{name}: brightness of each slice, mean±sd: {numbers}")]
    outliers: dict[int, list[str]] = {}
    for word, values in (("brightness", means), ("contrast", sds)):
        distance = np.abs(values - np.median(values))
        limit = max(STANDS_OUT * 1.4826 * np.median(distance), np.median(sds) / 2)
        for number in np.flatnonzero(distance > limit).tolist():
            outliers.setdefault(number, []).append(word)
    if outliers:
        slices = shorten([f"slice {number} ({' and '.join(words)})" for number, words in sorted(outliers.items())], 8)
        notes.append(Finding("warning", f"{name}: slices that stand out: {slices}; the median is "
                             f"{np.median(means):.4g}±{np.median(sds):.3g}", "Each slice is normalised to the same "
                             "mean and contrast, but what is overexposed, faint or covered by dirt stays so.",
                             f"Look at them; {DELETE}"))
    return notes


def check_slices(name: str, stack: Slices) -> list[Finding]:
    """Report slices of only one value, and slices that occur more than once, in a stack (N, H, W)."""
    notes = []
    empty = np.flatnonzero([page.min() == page.max() for page in stack])
    if empty.size:
        notes.append(Finding("warning", f"{name}: empty slices, of only one value: {list_slices(empty)}",
                             "They teach the network that there is nothing to find.", DELETE))
    groups = [list_slices(group) for group in _group_identical(stack).values()
              if len(group) > 1 and group[0] not in empty]
    if groups:
        notes.append(Finding("warning", f"{name}: identical slices: {shorten(groups, 6, '; ')}", "A copy among the "
                             "held-out slices makes the score look better than it is.", DELETE))
    return notes


def _group_identical(stack: Slices) -> dict[bytes, list[int]]:
    """Return the numbers of the slices that have the same pixels, by the hash of these."""
    groups: dict[bytes, list[int]] = {}
    for number, page in enumerate(stack):
        groups.setdefault(hashlib.sha256(np.ascontiguousarray(page)).digest(), []).append(number)
    return groups


# ------------------------------------------------------------------------------------------------------ labels


def check_labels(labels: Slices, thin_walls: Walls) -> list[Finding]:
    """Check that labels (N, H, W) are 0 = membrane, 255 (or 1) = cell in every slice; report the share of membrane."""
    values, counts = tally(labels)
    first_values = shorten([f"{value.item():g}" for value in values[:7]], 6)
    if len(values) == 1:
        return [Finding("problem", f"{LABELS}: every pixel is {first_values}", "There is nothing to learn.",
                        "Draw the membranes as 0 on cells of 255, or copy the right file")]
    if len(values) == 2 and values[0] == 0 and values[1] in (1, 255):
        notes = [Finding("ok", f"{LABELS}: two values, 0 = membrane and {values[1].item():g} = cell")]
    else:
        reason = "" if len(values) == 2 else "; perhaps every cell has its own number, or this is an image"
        if reason and _has_soft_edges(values, counts):
            reason = "; edges were softened, as JPEG or scaling does"
        notes = [Finding("problem", f"{LABELS}: {len(values)} values ({first_values}){reason}", "Training needs two "
                         "values, 0 = membrane and 255 = cell, or 0, 1, 2, ... with --classes, here and in "
                         "augmentation.py.", f"Fiji: Image > Adjust > Threshold..., Apply, then {SAVE}")]
    cells = as_cells(labels)
    membrane = np.array([1 - cell.mean() for cell in cells])
    empty, full = membrane == 1, membrane == 0
    sample = sample_evenly(np.flatnonzero(~empty & ~full), WALL_SLICES)
    if empty.any() and len(sample) and not thin_walls(cells[number] for number in sample):
        notes.append(Finding("note", f"{LABELS}: no object in slices {list_slices(np.flatnonzero(empty))}",
                             "Labels are objects on background; a slice may have none. You need not do anything."))
        empty[:] = False
    blank = np.flatnonzero(empty | full)
    if blank.size:
        notes.append(Finding("problem", f"{LABELS}: slices of only one value: {list_slices(blank)}",
                             "They look unlabelled: training and scores would be wrong.", DRAW_OR_DELETE))
    covers = f"membrane is {membrane.mean():.1%} of all pixels, by slice {membrane.min():.1%} to {membrane.max():.1%}"
    if membrane.mean() < THIN_MEMBRANE:
        return [*notes, Finding("warning", f"{LABELS}: {covers}", "Such thin lines are hard to learn.",
                                "Fiji: Process > Filters > Minimum..., radius 1, makes them thicker")]
    return [*notes, Finding("ok", f"{LABELS}: {covers}")]


def _has_soft_edges(values: np.ndarray, counts: np.ndarray) -> bool:
    """Tell whether most pixels are nearly black or white, from the values in labels and how often each occurs."""
    place = (values.astype(float) - values[0]) / max(float(values[-1] - values[0]), 1e-6)
    return counts[(place < 0.1) | (place > 0.9)].sum() > 0.6 * counts.sum()


def as_cells(labels: Slices) -> ConvertedPages:
    """Return labels as bool, True = cell, whether they have two values, soft edges, or a number for every cell."""
    values, counts = tally(labels)
    threshold = (float(values[0]) + float(values[-1])) / 2 if _has_soft_edges(values, counts) else values[0]
    return ConvertedPages(labels, lambda label: label > threshold, bool)


def are_separate_objects(cells: Slices, thin_walls: Walls) -> bool:
    """Tell whether cells, bool (H, W) each, are objects on background, not cells between membranes or their inverse."""
    numbers = sample_evenly([number for number, cell in enumerate(cells) if cell.any() and not cell.all()])
    sample = [cells[number] for number in numbers]
    return sample != [] and not thin_walls(sample) and not thin_walls([~cell for cell in sample])


def sample_evenly(numbers: Sequence[int], least: int = 5) -> Sequence[int]:
    """Return every n-th slice number, enough to judge a stack by: `least` to twice as many, or all of fewer."""
    return numbers[::max(1, len(numbers) // least)]


def check_polarity(images: Slices, cells: Slices, name: str = LABELS) -> list[Finding]:
    """Report labels that look inverted: membrane (0) is most of the area, or brighter than the cells."""
    sums = np.zeros((2, 2))  # rows: membrane, cell; columns: number of pixels, sum of their grey levels
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
                    "where membranes are. With a fluorescent stain, bright membranes are right.", INVERT)]


def pixel_step(count: int) -> int:
    """Return the step, along both axes, that leaves about 200 000 of `count` pixels: enough to judge brightness."""
    return max(1, round((count / 200_000) ** 0.5))


def polarity_notes(images: Sequence[np.ndarray], labels: Sequence[np.ndarray], name: str = LABELS) -> list[str]:
    """Return a sentence if labels (H, W), 0 = membrane, look inverted on images (H, W) or (H, W, 3), otherwise none.

    Pass only every `pixel_step`-th pixel of each; `name` is what to call the labels.
    """
    grey = np.concatenate([(image if image.ndim == 2 else image.mean(axis=2)).ravel() for image in images])
    cells = as_cells([np.concatenate([label.ravel() for label in labels])])
    return [f"{finding.what}; {finding.remedy}" for finding in check_polarity([grey], cells, name)]


def check_pairs(images: Slices, cells: Slices) -> list[Finding]:
    """Report slices (N, H, W) whose labels do not fit their image: membrane and cell differ less than elsewhere."""
    contrasts = np.full(len(images), np.nan)  # stays NaN if there is nothing to compare
    for number, (image, cell) in enumerate(zip(images, cells, strict=True)):
        if cell.any() and not cell.all() and image.std():
            contrasts[number] = (image[cell].mean() - image[~cell].mean()) / image.std()
    if np.isnan(contrasts).all():
        return []
    median = np.nanmedian(contrasts)
    if abs(median) < 0.2:
        return [Finding("warning", f"{LABELS} do not fit {VOLUME}: membranes are as bright as cells", "Labels that are "
                        "not where the membranes are cannot be learnt.", COMPARE)]
    misfits = np.flatnonzero(contrasts / median < 0.25)
    return [Finding("warning", f"{LABELS}: slices whose labels do not fit their image: {list_slices(misfits)}",
                    "They teach the network what is not there.", COMPARE)] if misfits.size else []


def check_cells(cells: Slices, images: Slices | None = None) -> list[Finding]:
    """Report cells (N, H, W) that are not closed: a piece that is too large, or a gap of one or two pixels."""
    notes = []
    shares = np.array([np.bincount(label(cell, connectivity=1).flat)[1:].max(initial=0) / cell.size for cell in cells])
    leaks = np.flatnonzero((shares > LEAK_SHARE) & (shares < 1))
    if leaks.size:
        notes.append(Finding("warning", f"{LABELS}: one cell covers up to {shares.max():.0%} of a slice, in slices "
                             f"{list_slices(leaks)}", "Cells that are not closed count as one.", DRAW))
    gaps = [f"slice {number} at y {y}, x {x}" for number, cell in enumerate(cells)
            for y, x in find_gaps(cell, None if images is None else images[number])]
    return notes + gap_notes(gaps, images is not None) or [Finding("ok", f"{LABELS}: cells are closed")]


def gap_notes(gaps: list[str], in_image: bool = True, name: str = LABELS) -> list[Finding]:
    """Report gaps in the labels called `name`, each a place in words; `in_image`: the image shows a membrane there."""
    if not gaps:
        return []
    problem = "the membrane seems to have gaps" if in_image else "narrow places, gaps or thin necks"
    return [Finding("warning", f"{name}: {problem}: {shorten(gaps, 10, '; ')}", "Two large cells join there over one "
                    f"or two pixels{', though the image is dark' * in_image}. One such gap lowers the score more than "
                    "many wrong pixels.", f"{DRAW}; leave a cell's true neck as it is")]


# ---------------------------------------------------------------------------------------------- several stacks


def check_counts(images: Slices, labels: Slices) -> list[Finding]:
    """Check that every image (N, H, W) has its label on the same pixels, and that there are enough."""
    notes = []
    sizes = [f"{len(stack)} slices of {stack.shape[1]} x {stack.shape[2]} pixels" for stack in (images, labels)]
    if sizes[0] != sizes[1]:
        notes.append(Finding("problem", f"{VOLUME} has {sizes[0]} but {LABELS} {sizes[1]}",
                             "Every image needs its label, in the same order and on the same pixels.", COMPARE))
    if len(images) < FEW_SLICES:
        count = f"{len(images)} slices are few" if len(images) > 1 else "one slice is little"
        notes.append(Finding("warning", f"{VOLUME}: {count}", "The network learns less, and so few held-out slices say "
                             "little about how good it is.", "Label more slices; 20 to 30 are enough"))
    return notes


def check_test(images: Slices, test: Slices) -> list[Finding]:
    """Check that the stack to segment (M, H, W) looks like the training images and has none of them."""
    hashes = _group_identical(images)
    copies = [number for digest, group in _group_identical(test).items() if digest in hashes for number in group]
    notes = []
    if copies:
        notes.append(Finding("warning", f"{TEST}: slices that are also training images: {list_slices(copies)}",
                             "How well they are segmented says nothing about new images.",
                             "Put the stack to segment there"))
    (mean, sd), (test_mean, test_sd) = mean_and_sd(images), mean_and_sd(test)
    sd = max(sd, 1e-6)
    if images.dtype == test.dtype and (abs(test_mean - mean) > sd / 2 or not 0.67 < test_sd / sd < 1.5):
        notes.append(Finding("warning", f"{TEST} looks different from {VOLUME}: {test_mean:.0f}±{test_sd:.0f} against "
                             f"{mean:.0f}±{sd:.0f}", "Brightness and contrast are normalised slice by slice; "
                             "a different noise, stain or magnification is not.",
                             "Check that both come from the same microscope, at the same magnification"))
    return notes


# -------------------------------------------------------------------------------------------------- the folder


def examine_stacks(folder: Path, thin_walls: Walls | None) -> list[Finding]:
    """Run all checks on a folder of stacks, also after a broken file. Raises UserError if it is not a folder.

    Without `thin_walls` labels are taken as classes, and the checks of cells are left out.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; {GET_DATA}")
    other_names = sorted(path.name for path in folder.iterdir() if path.name not in (VOLUME, LABELS, TEST))
    notes = [Finding("ok", f"not read: {shorten(other_names, 8)}")] if other_names else []
    notes.append(Finding("note", "Slices are counted from 0, as --holdout counts them; Fiji counts from 1"))
    stacks = {}
    for name in (VOLUME, TEST, LABELS):
        stacks[name], findings = _open(folder / name)
        notes += findings
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
        notes += [] if polarity and are_separate_objects(cells, thin_walls) else polarity
        notes += check_pairs(images, cells) if pair else []
    return notes + (check_test(images, test) if images is not None and test is not None else [])


def _open(path: Path) -> tuple[ConvertedPages | None, list[Finding]]:
    """Open the stack (N, H, W) of a file, None if it cannot be read; also return the findings about its pixels."""
    if not path.is_file():
        similar = nearly_named(path)
        return None, [Finding("problem", f"{path.name} is missing", "All three files are needed.", f"Rename {similar}, "
                              f"or save it as TIFF from Fiji: {SAVE}" if similar else f"Put it into {path.parent}")]
    try:
        stack = TiffPages(path)
        notes = check_pixels(f"{path.name} ({path.stat().st_size / 1e6:.3g} MB)", stack)
    except (UserError, OSError) as error:
        what, _, remedy = str(error).replace(f"{path}", path.name).partition("; ")
        return None, [Finding("problem", what, "It cannot be used.", remedy or "Give yourself permission to read it")]
    return ConvertedPages(stack, _plain, stack.dtype), notes


def _plain(page: np.ndarray) -> np.ndarray:
    """Return a page as (H, W) without NaN or infinity; of colours the first channel, enough for the other checks."""
    page = page[..., 0] if page.ndim == 3 else page
    return np.nan_to_num(page, posinf=0, neginf=0) if page.dtype.kind == "f" else page
