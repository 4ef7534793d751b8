"""`predict.py --dask`: trained models on the workers of a Dask cluster."""

from __future__ import annotations

import argparse
import pickle
from functools import partial

from unet.engines.ensemble import Ensemble, open_again
from unet.engines.predictor import Predictor
from unet.inputs.samples import Samples
from unet.inputs.zarrs import ZarrPages
from unet.predicting.chunks import Job, connected, predict_by_chunks
from unet.predicting.images import Extras
from unet.tasks.task import Outputs
from utils import UserError

WHOLE = ("panels", "submission", "check_seams")  # options that are for pages in memory


def predict_on_cluster(args: argparse.Namespace, predictor: Predictor | Ensemble, learnt: dict, outputs: Outputs,
                       samples: Samples, extras: Extras) -> int:
    """Predict as the command line says, by chunks; counts objects.

    Raises UserError where something is asked for that chunks cannot do.
    """
    wanted = [f"--{name.replace('_', '-')}" for name in WHOLE if getattr(args, name)]
    if wanted:
        raise UserError(f"--dask predicts by chunks and cannot do {', '.join(wanted)}; leave that out")
    if predictor.task.windowed:
        raise UserError("--dask is for models of stacks, and this one was trained on single images; leave it out")
    if not isinstance(getattr(getattr(samples, "images", None), "pages", None), ZarrPages):
        raise UserError(f"--dask reads chunks of a Zarr, and {args.input} is none; save it as one, for instance with "
                        "bioformats2raw")
    for path in predictor.task.files(outputs, samples.names):
        if path.suffix != ".zarr":
            raise UserError(f"--dask writes chunks of a Zarr, and {path} is none; let the name end with .zarr")
    if (args.link or args.table) and not outputs.objects:
        raise UserError("--dask takes --table and --link from numbered objects, and none are written; name a Zarr for "
                        "them with --cells")
    if any(member.zooms != (1.0,) for member in predictor.members):
        raise UserError("--dask predicts at the image's own size; leave --match-pixel-size out, or add --zooms 1")
    if not predictor.by_rows:
        raise UserError("--dask cannot average flips of a network that loses its border, as of the preset paper; add "
                        "--flips 1")
    network = partial(open_again, [model.resolve() for model in args.model], args.engine, args.precision, args.flips)
    margin = max(member.network.margin + member.network.stride for member in predictor.members)
    job = Job(args.input.resolve(), predictor.task, learnt, pickle.dumps(network), margin, extras.kept.folder.resolve())
    with connected(args.dask, args.workers) as client:
        print(f"Dask: {client.scheduler.address}, {len(client.nthreads())} workers")
        return predict_by_chunks(client, job, outputs, samples, extras)
