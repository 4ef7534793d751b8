"""`predict.py --dask`: trained models on the workers of a Dask cluster."""

from __future__ import annotations

import argparse
import pickle
from functools import partial

from unet.engines.ensemble import Ensemble, reopen_models
from unet.engines.predictor import Predictor
from unet.inputs.samples import Samples
from unet.inputs.zarrs import ZarrPages
from unet.predicting.chunks import Context, dask_client, predict_by_chunks
from unet.predicting.extras import Extras
from unet.tasks.task import Outputs
from utils import UserError

PAGE_OPTIONS = ("panels", "submission", "check_seams")  # they need whole pages in memory


def predict_on_cluster(args: argparse.Namespace, predictor: Predictor | Ensemble, learnt: dict, outputs: Outputs,
                       samples: Samples, extras: Extras) -> int:
    """Predict by chunks as the command line asks; return the number of objects.

    Raises UserError if the command line asks for something that prediction by chunks does not support.
    """
    page_options = [f"--{name.replace('_', '-')}" for name in PAGE_OPTIONS if getattr(args, name)]
    if page_options:
        raise UserError(f"--dask predicts by chunks, not whole pages; leave out {', '.join(page_options)}")
    if predictor.task.windowed:
        raise UserError("--dask supports only models of stacks, and this one was trained on single images; leave it "
                        "out")
    if not isinstance(getattr(getattr(samples, "images", None), "pages", None), ZarrPages):
        raise UserError(f"--dask reads the chunks of a Zarr, and {args.input} is not one; convert it, for instance "
                        "with bioformats2raw")
    for path in predictor.task.files(outputs, samples.names):
        if path.suffix != ".zarr":
            raise UserError(f"--dask writes the chunks of a Zarr, and {path} is not one; let the name end with .zarr")
    if (args.link or args.table) and not outputs.objects:
        raise UserError("--table and --link need numbered objects, and none are written; with --dask, name a Zarr for "
                        "them with --cells")
    if any(member.zooms != (1.0,) for member in predictor.members):
        raise UserError("--dask predicts at the image's own size; leave out --match-pixel-size, or add --zooms 1")
    if not predictor.by_rows:
        raise UserError("--dask cannot average flips of a network without padding, like that of the preset paper; add "
                        "--flips 1")
    network = partial(reopen_models, [model.resolve() for model in args.model], args.engine, args.precision, args.flips)
    margin = max(member.network.margin + member.network.stride for member in predictor.members)
    context = Context(args.input.resolve(), predictor.task, learnt, pickle.dumps(network), margin,
                      extras.checkpoint.folder.resolve())
    with dask_client(args.dask, args.workers) as client:
        print(f"Dask: {client.scheduler.address}, {len(client.nthreads())} workers")
        return predict_by_chunks(client, context, outputs, samples, extras)
