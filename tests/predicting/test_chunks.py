"""A Zarr is predicted by chunks as it is in one piece, whoever dies on the way."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from conftest import draw_stacks
from numpy.testing import assert_allclose, assert_array_equal
from predicting.test_bands import LEARNT as ALONE
from predicting.test_bands import Bright

from unet.engines.predictor import Limits, Predictor
from unet.inputs.layouts import StackSamples
from unet.inputs.ome_zarr import CHUNK, Stack
from unet.inputs.voxel import Voxel
from unet.inputs.writers import page_writer, read_page
from unet.network import Network
from unet.predicting import chunks
from unet.predicting.checkpoint import Checkpoint
from unet.predicting.chunks import Context, dask_client, predict_by_chunks
from unet.predicting.extras import Extras
from unet.predicting.images import predictions
from unet.segment.judge import fit_judge
from unet.segment.linking import Linker
from unet.segment.table import table_writer
from unet.segment.walls import draw_walls
from unet.system.lock import lock_path
from unet.tasks.cells import Cells
from utils import UserError

pytest.importorskip("zarr", reason="zarr is not installed; requirements-zarr.txt has it")
distributed = pytest.importorskip("distributed", reason="Dask is not installed; requirements-zarr.txt has it")
cloudpickle = pytest.importorskip("cloudpickle")
# two chunks by two, the last ones narrow; of the second page the membranes fade, and are what they were in the first
IMAGES = draw_stacks(1, CHUNK + 70)[0][[0, 0], :, :CHUNK + 21]
IMAGES[1] = 0.6 * IMAGES[1] + 60
NEIGHBOURS = fit_judge([(np.random.default_rng(0).normal(0, 3, (300, 16)), np.arange(300) % 2 == 0)])
LEARNT = {**ALONE, "walls": {**ALONE["walls"], "with_neighbours": NEIGHBOURS}}


class Slow(Bright):
    """`Bright`, but slow: notes its calls in a file, and raises at call `stop`."""

    def __init__(self, calls, seconds, stop):
        super().__init__()
        self.file, self.seconds, self.stop_at = calls, seconds, stop

    def __call__(self, tiles):
        with open(self.file, "a") as file:
            file.write("x")
        if os.path.getsize(self.file) == self.stop_at:
            raise UserError("the engine stops here")
        time.sleep(self.seconds)
        return super().__call__(tiles)


def network(calls, seconds=0.0, stop=None):
    """Pickle the function with which a worker opens its network."""
    def opened():
        return Predictor(Slow(calls, seconds, stop), Network(4, 2), Cells(), flips=1, limits=Limits(core=640))

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cloudpickle.register_pickle_by_value(sys.modules[Bright.__module__])
    return cloudpickle.dumps(opened)


def outputs_of(folder, name):
    """Name three Zarrs."""
    return Cells().outputs(folder / f"{name}.zarr", redrawn=folder / f"{name}-walls.zarr")


def arrays_of(outputs, samples):
    """Read what was written: probabilities, cells and walls, each (N, H, W)."""
    return [np.stack([read_page(path, stack, number) for number in range(len(samples))])
            for path, stack in Cells().stacks(outputs, samples).items()]


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """Write two pages as a Zarr; return it with the prediction of it in one piece."""
    folder = tmp_path_factory.mktemp("volume")
    with page_writer(folder / "in.zarr", Stack(IMAGES.shape, np.uint8, Voxel(0.004, 0.004, 0.05))) as write:
        for page in IMAGES:
            write(page)
    samples, outputs = StackSamples(folder / "in.zarr"), outputs_of(folder, "whole")
    whole = Predictor(Bright(), Network(4, 2), Cells(), flips=1, limits=Limits(core=640))
    for _ in predictions(whole, Cells(), samples, LEARNT, outputs):
        pass
    return samples, arrays_of(outputs, samples)


def predict(client, samples, outputs, pickled, resume=False, **extras):
    """Predict by chunks; return the number of objects."""
    kept = Checkpoint(outputs.out, {}, resume)
    context = Context(samples.images.pages.path, Cells(), LEARNT, pickled, Network(4, 2).margin, kept.folder)
    return predict_by_chunks(client, context, outputs, samples, Extras(checkpoint=kept, **extras))


@pytest.fixture
def here():
    """Yield a client of one worker in this process."""
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as one, \
            distributed.Client(one) as client:
        yield client


def test_chunks_are_as_the_whole_and_a_stop_loses_none(tmp_path, volume, here):
    samples, whole = volume
    outputs, calls = outputs_of(tmp_path, "p"), tmp_path / "calls"
    with pytest.raises(UserError, match="the engine stops here"):
        predict(here, samples, outputs, network(calls, stop=6))
    room = tmp_path / "p.zarr.part"
    count = len(list((room / "marks").iterdir()))
    assert {path.name for path in tmp_path.iterdir()} == {"p.zarr.part", "calls"} and 5 <= count <= 6
    assert predict(here, samples, outputs, network(calls), resume=True) == sum(map(np.max, whole[1]))
    assert calls.stat().st_size <= 8 + 2  # each chunk once, but for what was under way
    assert {path.name for path in tmp_path.iterdir()} == {"p.zarr", "p-cells.zarr", "p-walls.zarr", "calls"}
    for one, other in zip(arrays_of(outputs, samples), whole, strict=True):
        assert_allclose(one, other, atol=1e-6)
    assert_allclose(whole[2], [draw_walls(one, LEARNT["walls"], [other]) for one, other in (whole[0], whole[0][::-1])])
    assert any((draw_walls(one, LEARNT["walls"]) != drawn).any() for one, drawn in zip(whole[0], whole[2], strict=True))
    pyramid = read_page(outputs.out, Stack((2, *IMAGES.shape[1:]), np.float32), 1)
    import zarr
    level = zarr.open_array(str(outputs.out / "1"), mode="r")[1]
    assert level.shape == tuple((side + 1) // 2 for side in pyramid.shape)
    assert level[0, 0] == pytest.approx(pyramid[:2, :2].mean())


def test_numbers_through_the_stack_and_the_table_are_those_of_the_whole(tmp_path, volume, here):
    samples, whole = volume
    outputs, table, link = outputs_of(tmp_path, "p"), tmp_path / "p.csv", Linker()
    linked = [link(page) for page in whole[1]]
    assert predict(here, samples, outputs, network(tmp_path / "calls"), link=True, table=table) == link.greatest
    assert_array_equal(arrays_of(outputs, samples)[1], linked)
    with table_writer(tmp_path / "q.csv", (0.004, 0.004), "um") as rows:
        for number, objects in enumerate(linked):
            rows(number, samples.names[number], objects, IMAGES[number])
    assert table.read_text() == (tmp_path / "q.csv").read_text()


def test_other_pixels_or_another_process_are_refused(tmp_path, volume, here):
    samples, _ = volume
    outputs = outputs_of(tmp_path, "p")
    with pytest.raises(UserError, match="the engine stops here"):
        predict(here, samples, outputs, network(tmp_path / "calls", stop=3))
    with page_writer(tmp_path / "in.zarr", Stack(IMAGES.shape, np.uint8)) as write:
        for page in IMAGES:
            write(page[::-1])
    with pytest.raises(UserError, match=r"the pixels of .*in\.zarr have changed since .*p\.zarr\.part was left"):
        predict(here, StackSamples(tmp_path / "in.zarr"), outputs, network(tmp_path / "calls"), resume=True)
    lock_path(outputs.out).write_text('{"process": 1, "started": 0, "machine": "elsewhere"}')
    with pytest.raises(UserError, match="being written by process 1"):
        predict(here, samples, outputs, network(tmp_path / "calls"))


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed(tmp_path, volume):
    samples, whole = volume
    outputs, room = outputs_of(tmp_path, "p"), tmp_path / "p.zarr.part"
    with dask_client("local", 2) as client:
        workers = list(client.run(os.getpid).values())
        assert len(set(workers)) == 2 and os.getpid() not in workers

        def kill():
            while not any((room / "marks").glob("*-*-*")):
                time.sleep(0.05)
            os.kill(workers[0], signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        predict(client, samples, outputs, network(tmp_path / "calls", seconds=1.0))
        killer.join(60)
        assert not killer.is_alive() and workers[0] not in client.run(os.getpid).values()
    assert not room.exists()
    for one, other in zip(arrays_of(outputs, samples), whole, strict=True):
        assert_allclose(one, other, atol=1e-6)
    assert_array_equal(arrays_of(outputs, samples)[1] > 0, whole[1] > 0)


def test_what_to_install_and_where_nobody_answers(monkeypatch):
    monkeypatch.setattr(chunks, "SCHEDULER_WAIT", 1)
    with pytest.raises(UserError, match=r"--dask tcp://127\.0\.0\.1:9: no scheduler answers there"), \
            dask_client("tcp://127.0.0.1:9", 1):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    missing = r"distributed, which is not installed: pip install -r requirements-zarr\.txt"
    with pytest.raises(UserError, match=missing), dask_client("local", 1):
        pass
