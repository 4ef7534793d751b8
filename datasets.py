"""Make or download data to try the pipeline with, and check your own before training on it.

    python datasets.py demo             make the demo stack in data/demo
    python datasets.py isbi             download the ISBI 2012 stacks into data
    python datasets.py import LABELS    convert other programs' labels: RoiSet.zip, COCO, numbered masks
    python datasets.py export CELLS     write numbered cells as a RoiSet.zip, to correct them in Fiji
    python datasets.py check DIR        examine a folder and report in plain words what it holds
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unet.system.signals import end_at_once

if __name__ == "__main__":
    end_at_once()

import numpy as np

from unet.inputs.demo import make_demo
from unet.inputs.doctor import examine_stacks, gap_notes
from unet.inputs.download import ISBI_URL, download_isbi
from unet.inputs.exchange import OUTLINE, export_rois, import_labels
from unet.inputs.findings import Finding, format_findings, span
from unet.inputs.gaps import find_gaps
from unet.inputs.layouts import Folders, Layout, Stacks, TwoFolders, layout_class, layout_of
from unet.segment.walls import thin_walls
from unet.tasks import choose_task
from utils import Parser, UserError, at_least, count_of, run


def examine(folder: Path, classes: int | None = None) -> tuple[str, bool]:
    """Return a report on a folder of any layout, and whether it is fit for training, on `classes` classes if given.

    Raises UserError if it is no folder, or a single image in it cannot be read; broken stacks are in the report.
    """
    findings = EXAMINERS[layout_class(folder)](folder, classes)
    return format_findings(folder, findings), is_ready(findings)


def is_ready(findings: list[Finding]) -> bool:
    """Tell whether no problem was found that prevents training."""
    return all(finding.level != "problem" for finding in findings)


def check_task(layout: Layout, classes: int | None) -> list[Finding]:
    """Return what the labels are taken as, and what step 1 would say about them."""
    task = choose_task(layout, classes=classes)
    try:
        return [*(Finding("warning", note) for note in task.check(layout)),
                Finding("ok", f"{layout.labels_name} are taken as {task.meaning}")]
    except UserError as error:
        problem, _, remedy = str(error).partition("; ")
        return [Finding("problem", problem, "Step 1 would refuse it.", remedy)]


def examine_slices(folder: Path, classes: int | None) -> list[Finding]:
    """Examine the three stacks, broken or not, as cells or, if the user says how many there are, as classes."""
    findings = examine_stacks(folder, None if classes else thin_walls)
    return findings + (check_task(Stacks(folder), classes) if classes and is_ready(findings) else [])


def examine_images(folder: Path, classes: int | None) -> list[Finding]:
    """Describe a folder of images, by modality; raise UserError for files that would stop step 1 or training."""
    layout = layout_of(folder)
    layout.to_predict()  # raises for bad images without labels: otherwise training would, after steps 1 and 2
    groups: dict[str, list[tuple[int, int, int]]] = {}
    for sample in layout:
        count = np.count_nonzero(np.unique(layout.objects(sample.label)))
        groups.setdefault(sample.group, []).append((*sample.image.shape[:2], count))
    findings = [Finding("ok", f"{len(layout)} {layout.noun}s with {layout.labels_name}, all of which can be read"),
                *check_task(layout, classes), *look_for_gaps(layout)]
    for group, members in groups.items():
        sizes = [f"{height}x{width}" for height, width, _ in sorted(members)]
        counts = sorted(count for *_, count in members)
        findings.append(Finding("ok", f"{group}: {count_of(len(members), layout.noun)} of {span(sizes)} pixels "
                                f"(y, x), {count_of(sum(counts), 'object')}, {span(counts)} in each"))
    return findings + [Finding("note", note) for note in layout.notes]


def look_for_gaps(layout: Folders) -> list[Finding]:
    """Find places where membranes of labelled cells seem to have gaps; none if labels have no thin walls."""
    samples = list(layout)
    if not thin_walls([sample.label for sample in samples]):
        return []
    gaps = [f"{sample.name} at y {y}, x {x}" for sample in samples
            for y, x in find_gaps(sample.label > 0, sample.image.mean(axis=2))]
    return gap_notes(gaps, name=layout.labels_name)


EXAMINERS = {Stacks: examine_slices, Folders: examine_images, TwoFolders: examine_images}


def add_exchange(commands: argparse._SubParsersAction) -> None:
    """Add the commands that exchange labels with other programs."""
    importing = commands.add_parser("import", help="make labels from a RoiSet.zip, COCO's JSON or numbered masks")
    importing.add_argument("labels", type=Path, metavar="LABELS", help="RoiSet.zip, COCO's .json, or a stack or a "
                                                                       "folder of numbered masks")
    importing.add_argument("--like", type=Path, metavar="STACK", help="the images that the ROIs were drawn on")
    importing.add_argument("--out", type=Path, default=Path("train-labels.tif"), help="the label stack, or a folder "
                                                                                      "for a TIFF per image")
    importing.add_argument("--outline", type=at_least(1), default=OUTLINE, help="width of the membrane that is drawn "
                                                                                "between cells, pixels")
    importing.add_argument("--numbers", action="store_true", help="keep a number for each object, instead of membrane "
                                                                  "and cell")
    exporting = commands.add_parser("export", help="write the outlines of numbered cells as a RoiSet.zip")
    exporting.add_argument("cells", type=Path, nargs="?", default=Path("cells.tif"), metavar="CELLS",
                           help="a stack with a number for each cell")
    exporting.add_argument("--out", type=Path, default=Path("RoiSet.zip"), help="the ROI set")


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="make a synthetic electron microscopy stack; needs no network")
    demo.add_argument("--data", type=Path, default=Path("data/demo"), help="folder to write into")
    demo.add_argument("--seed", type=at_least(0), default=0, help="the same seed gives the same bytes")
    isbi = commands.add_parser("isbi", help="download the ISBI 2012 stacks, 24 MB unpacked")
    isbi.add_argument("--data", type=Path, default=Path("data"), help="folder to write into")
    isbi.add_argument("--url", default=ISBI_URL, help="address of the zip")
    check = commands.add_parser("check", help="examine a folder and report in plain words what it holds")
    check.add_argument("data", type=Path, nargs="?", default=Path("data"), metavar="DIR",
                       help="folder of the stacks, or of images with masks")
    check.add_argument("--classes", type=at_least(2), help="number of classes, if the labels number kinds of pixels "
                                                           "from 0 (default: membrane and cell)")
    add_exchange(commands)
    args = parser.parse_args()
    if args.command == "demo":
        files = make_demo(args.data, seed=args.seed)
        print(f"{args.data}: {', '.join(path.name for path in files)}; the stack is synthetic, not real tissue")
    elif args.command == "isbi":
        files = download_isbi(args.data, args.url)
        print(f"{args.data}: {', '.join(path.name for path in files)}. Please cite what data/README.md names")
    elif args.command == "import":
        images, objects = import_labels(args.labels, args.out, args.like, None if args.numbers else args.outline)
        values = "a number for each" if args.numbers else (f"cells = 255, membranes = 0 and at least {args.outline} "
                                                           "pixels wide")
        print(f"{args.out}: {count_of(objects, 'object')} in {count_of(images, 'image')}, {values}")
    elif args.command == "export":
        print(f"{args.out}: {export_rois(args.cells, args.out)} outlines; in Fiji: Analyze > Tools > ROI Manager > "
              "More > Open..., with the images open")
    else:
        text, ready = examine(args.data, args.classes)
        print(text)
        if not ready:
            sys.exit(2)


if __name__ == "__main__":
    run(main)
