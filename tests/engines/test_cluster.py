"""`predict.py --dask`: the same prediction, and one line for each unsupported option."""

import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, draw_stacks
from numpy.testing import assert_allclose

from unet.engines.cluster import predict_on_cluster
from unet.engines.predictor import Predictor
from unet.inputs.layouts import StackSamples
from unet.inputs.ome_zarr import CHUNK, Stack
from unet.inputs.pages import open_pages
from unet.inputs.stacks import write_stack
from unet.inputs.voxel import Voxel
from unet.inputs.writers import page_writer
from unet.network import Network
from unet.predicting.checkpoint import Checkpoint
from unet.predicting.extras import Extras
from unet.tasks.cells import Cells
from utils import UserError

pytest.importorskip("zarr", reason="zarr is not installed; requirements-zarr.txt has it")
pytest.importorskip("distributed", reason="Dask is not installed; requirements-zarr.txt has it")


def write_volume(path, pages):
    """Write pages (N, H, W) as OME-Zarr of a known size."""
    with page_writer(path, Stack(pages.shape, pages.dtype, Voxel(0.004, 0.004, 0.05))) as write:
        for page in pages:
            write(page)


@pytest.mark.parametrize(("wrong", "reason"), [
    ({"panels": Path("a"), "check_seams": True},
     "--dask predicts by chunks, not whole pages; leave out --panels, --check-seams"),
    ({"table": Path("a.csv"), "none": True}, "--table and --link need numbered objects, and none are written"),
    ({"input": Path("in.tif")}, r"--dask reads the chunks of a Zarr, and .*in\.tif is not one"),
    ({"out": "p.tif"}, r"--dask writes the chunks of a Zarr, and .*p\.tif is not one; let the name end with \.zarr"),
    ({"zooms": (2.0,)}, "--dask predicts at the image's own size"),
    ({"flips": 2}, "--dask cannot average flips of a network without padding")],
    ids=["options", "objects", "input", "output", "zooms", "flips"])
def test_what_chunks_cannot_do_is_said_before(tmp_path, wrong, reason):
    write_volume(tmp_path / "in.zarr", draw_stacks(2, 64)[0])
    write_stack(tmp_path / "in.tif", draw_stacks(2, 64)[0])
    args = Namespace(**{"link": False, "table": None, "panels": None, "submission": None, "check_seams": False,
                        "input": Path("in.zarr"), "dask": "local", "workers": 1, **wrong})
    outputs = Cells().outputs(tmp_path / wrong.get("out", "p.zarr"))
    outputs = replace(outputs, objects=None) if "none" in wrong else outputs
    network = Network(4, 2, "valid" if "flips" in wrong else "same")
    predictor = Predictor(None, network, Cells(), wrong.get("flips", 1), wrong.get("zooms", (1.0,)))
    with pytest.raises(UserError, match=reason):
        predict_on_cluster(args, predictor, {}, outputs, StackSamples(tmp_path / args.input),
                           Extras(checkpoint=Checkpoint(outputs.out, {})))


@pytest.mark.slow
def test_the_command_gives_what_it_gives_without_dask_and_resumes(tmp_path, tiny_run):
    """Run two processes, as a user calls them; stop them as with Ctrl-C, then --resume."""
    image = np.tile(draw_stacks(1, 350)[0], (2, 2, 2))[:, :CHUNK + 50, :CHUNK + 33]
    write_volume(tmp_path / "in.zarr", image)
    for name in ("model.keras", "config.json"):  # a folder of its own for what is converted
        (tmp_path / "run").mkdir(exist_ok=True)
        shutil.copy(tiny_run / "results" / name, tmp_path / "run")
    model = str(tmp_path / "run" / "model.keras")
    command = [sys.executable, str(ROOT / "predict.py"), "in.zarr", "--model", model, "--precision", "float32",
               "--flips", "2", "--out"]
    dask = [*command, "p.zarr", "--dask", "local", "--workers", "2"]
    assert subprocess.run([*command, "q.zarr"], cwd=tmp_path, timeout=600, capture_output=True).returncode == 0
    for _attempt in range(3):  # a signal may come when all is done, or where a library takes it
        running = subprocess.Popen(dask, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   start_new_session=True,  # what starts the tests may have Ctrl-C ignored
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        end = time.monotonic() + 600
        while not any((tmp_path / "p.zarr.part" / "marks").glob("*-*-*")) and running.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGINT)
        out, errors = running.communicate(timeout=600)
        if running.returncode != 0:
            break
    assert running.returncode == 130, out + errors
    assert "finished chunks are kept in p.zarr.part" in errors and "Traceback" not in errors
    done = subprocess.run([*dask, "--resume"], cwd=tmp_path, timeout=600, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "p.zarr, p-cells.zarr: 2 images, " in done.stdout and "Traceback" not in done.stderr
    one, other = (open_pages(tmp_path / name) for name in ("p.zarr", "q.zarr"))
    assert one.voxel == other.voxel == Voxel(0.004, 0.004, 0.05)
    assert_allclose(np.asarray(one), np.asarray(other), atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "p-cells.zarr", "p.zarr", "q-cells.zarr",
                                                                "q.zarr", "run"]
