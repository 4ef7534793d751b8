"""Whatever format the output has: the same numbers, nothing before all is there, on from where it was stopped."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import draw_stacks
from numpy.testing import assert_allclose, assert_array_equal
from predicting.test_bands import LEARNT, Bright

from unet.engines.predictor import Limits, Predictor
from unet.inputs import lazy
from unet.inputs.layouts import StackSamples
from unet.inputs.lazy import PageRows
from unet.inputs.ome_zarr import Stack
from unet.inputs.stacks import stack_writer
from unet.inputs.voxel import Voxel
from unet.inputs.writers import page_writer, read_page
from unet.network import Network
from unet.predicting.checkpoint import Checkpoint
from unet.predicting.extras import Extras
from unet.predicting.images import predictions
from unet.system.lock import lock_outputs, lock_path
from unet.tasks import task
from unet.tasks.cells import Cells
from utils import UserError

FORMATS = (".tif", ".ome.tif", "", ".zarr")
IMAGES = draw_stacks(3, 90)[0][:, :, :83]


@pytest.fixture
def samples(tmp_path):
    """Write three slices (90, 83) with a pixel size into a file."""
    with stack_writer(tmp_path / "in.tif", IMAGES.shape, IMAGES.dtype, voxel=Voxel(0.004, 0.004, 0.05)) as write:
        for page in IMAGES:
            write(page)
    return StackSamples(tmp_path / "in.tif")


def predict(samples, out, engine, resume=False):
    """Predict into `out`; return the number of the engine's calls."""
    if out.suffix == ".zarr":
        pytest.importorskip("zarr", reason="zarr is not installed; requirements-zarr.txt has it")
    outputs = Cells().outputs(out, redrawn=out.with_name(f"walls{out.name[1:]}"))
    Cells().check_outputs(outputs, samples)
    one = Predictor(engine, Network(4, 2), Cells(), flips=2, limits=Limits(core=40, pixels=1))
    for _ in predictions(one, Cells(), samples, LEARNT, outputs, extras=Extras(checkpoint=Checkpoint(out, {}, resume))):
        pass
    return engine.calls


def pages_of(samples, out):
    """Read what was written: probabilities, cells, and walls, each (N, H, W)."""
    outputs = Cells().outputs(out, redrawn=out.with_name(f"walls{out.name[1:]}"))
    stacks = Cells().stacks(outputs, samples)
    return [np.stack([read_page(path, stack, number) for number in range(len(samples))])
            for path, stack in stacks.items()]


@pytest.mark.parametrize("ending", FORMATS)
def test_all_formats_hold_the_same_and_go_on_after_a_stop(tmp_path, samples, ending):
    calls = predict(samples, tmp_path / "q.tif", Bright())
    whole = pages_of(samples, tmp_path / "q.tif")
    assert (whole[0].shape, whole[1].max() > 3) == (IMAGES.shape, True)
    out = tmp_path / "sub" / f"p{ending}"
    with pytest.raises(KeyboardInterrupt, match="same command with --resume"):
        predict(samples, out, Bright(stop=calls - 3))
    assert [path.name for path in out.parent.iterdir()] == [f"p{ending}.part"]
    assert predict(samples, out, Bright(), resume=True) < calls / 2
    assert len(list(out.parent.iterdir())) == 3
    for one, other in zip(pages_of(samples, out), whole, strict=True):
        assert_array_equal(one, other)
    predict(samples, out, Bright())  # and again over what is there
    assert len(list(out.parent.iterdir())) == 3


def test_a_large_slice_is_written_by_bands(tmp_path, samples, monkeypatch):
    predict(samples, tmp_path / "q.tif", Bright())
    monkeypatch.setattr(task, "LARGE_IMAGE", 80 * 80)
    predict(samples, tmp_path / "p.zarr", Bright())
    for one, other in zip(pages_of(samples, tmp_path / "p.zarr")[::2], pages_of(samples, tmp_path / "q.tif")[::2],
                          strict=True):
        assert_allclose(one, other, atol=1e-6)
    assert pages_of(samples, tmp_path / "p.zarr")[1].dtype == np.uint32


def test_a_large_slice_of_a_zarr_is_read_by_rows(tmp_path, samples, monkeypatch):
    predict(samples, tmp_path / "q.tif", Bright())
    with page_writer(tmp_path / "in.zarr", Stack(IMAGES.shape, np.uint8, samples.voxel)) as write:
        for page in IMAGES:
            write(page)
    monkeypatch.setattr(task, "LARGE_IMAGE", 80 * 80)
    monkeypatch.setattr(lazy, "LARGE_PAGE", 80 * 80)
    rows = StackSamples(tmp_path / "in.zarr")
    assert isinstance(rows[0].image, PageRows)
    predict(rows, tmp_path / "p.zarr", Bright())
    assert_allclose(pages_of(rows, tmp_path / "p.zarr")[0], pages_of(samples, tmp_path / "q.tif")[0], atol=1e-6)
    monkeypatch.setattr(task, "LARGE_IMAGE", 10**9)
    predict(rows, tmp_path / "p.tif", Bright())
    assert_array_equal(pages_of(rows, tmp_path / "p.tif")[0], pages_of(samples, tmp_path / "q.tif")[0])


def test_what_a_killed_process_left_of_a_folder_goes_and_what_it_moved_comes_back(tmp_path):
    """The process dies where a folder is to take the place of another."""
    script = ("import os, sys\nfrom pathlib import Path\n"
              "from unet.system.lock import lock_outputs\nfrom utils import atomic_folder\n"
              "path = Path(sys.argv[1])\nwith lock_outputs([path]), atomic_folder(path) as folder:\n"
              "    (folder / 'new').touch()\n    path.rename(f'{folder}.old')\n    os._exit(9)")
    (tmp_path / "p.zarr").mkdir()
    (tmp_path / "p.zarr" / "old").touch()
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "p.zarr")]).returncode == 9
    assert not (tmp_path / "p.zarr").exists() and len(list(tmp_path.iterdir())) == 3
    with lock_outputs([tmp_path / "p.zarr"]):
        assert (tmp_path / "p.zarr" / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["p.zarr"]


def test_two_at_once_into_one_zarr(tmp_path, samples):
    lock_path(tmp_path / "p.zarr").write_text(json.dumps({"process": 1, "started": 0, "machine": "elsewhere"}))
    with pytest.raises(UserError, match=r"p\.zarr is being written by process 1 on elsewhere"):
        predict(samples, tmp_path / "p.zarr", Bright())
