"""What a prediction is asked for besides its outputs: a table, linked numbers, pictures, Kaggle's lines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unet.inputs.samples import Samples
from unet.inputs.writers import check_text_output
from unet.predicting.checkpoint import Checkpoint
from unet.segment.table import TABLE_START
from unet.tasks.task import Outputs
from utils import UserError, file_hash, require_space

KAGGLE_START = "ImageId,EncodedPixels"  # first line of Kaggle's run-length CSV
SHEETS = (".xlsx", ".xls", ".ods")  # spreadsheets do not open CSV under these names


@dataclass(frozen=True)
class Extras:
    """What a prediction does on request, besides its outputs.

    link : give a cell one number through the stack
    table : CSV file with a row per object
    checkpoint : where finished images are kept until all are finished
    title : text of the progress bar
    spread : compute how far flips disagree; not known for images that are processed by bands, or were kept before
    """

    link: bool = False
    table: Path | None = None
    checkpoint: Checkpoint | None = None
    title: str = "predicting"
    spread: bool = False


NO_EXTRAS = Extras()


def extras_of(args: argparse.Namespace, samples: Samples, outputs: Outputs) -> Extras:
    """Return the user's further requests, and where finished images are kept; raise UserError for impossible ones."""
    if args.link and not (outputs.objects or args.table):
        raise UserError("--link numbers objects, and none are written; name a file for them with --cells")
    about = {f"--{name}": str(value) for name, value in vars(args).items()
             if name not in ("input", "model", "resume", "dask", "workers")}
    about |= {"input": [str(args.input.resolve()), list(samples.names)],
              "model": [file_hash(model) for model in args.model],
              "config.json": [file_hash(model.with_name("config.json")) for model in args.model]}
    return Extras(args.link, args.table, checkpoint=Checkpoint(outputs.out, about, args.resume))


def check_further(args: argparse.Namespace, samples: Samples, outputs: Sequence[Path]) -> None:
    """Raise UserError if a table, Kaggle's lines or pictures cannot be written, or would replace something else."""
    texts = [(path, start) for path, start in ((args.table, TABLE_START), (args.submission, KAGGLE_START)) if path]
    pictures = [args.panels / f"{name}.png" for name in samples.names] if args.panels else []
    configs = [model.with_name("config.json") for model in args.model]
    samples.check_apart([*outputs, *pictures, *(path for path, _ in texts)], [*args.model, *configs])
    if args.table and args.table.suffix.lower() in SHEETS:
        raise UserError(f"--table {args.table}: tables are CSV, which spreadsheets open; end the name with .csv")
    for path, start in texts:
        check_text_output(path, start)
    if args.panels:
        require_space(args.panels, 10_000_000)
