"""What napari gets of a prediction: slices, numbers and pixel size; by its own reader where napari is on the PATH."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile

from unet.inputs.layouts import StackSamples
from unet.inputs.stacks import stack_writer
from unet.inputs.voxel import Voxel
from unet.tasks.cells import Cells
from unet.tasks.task import Outputs, Prediction

OPEN = """
import json, sys
from napari.components import ViewerModel
from napari.layers import _layer_actions
from napari.plugins import _initialize_plugins

_initialize_plugins()
viewer = ViewerModel()  # all but the window
viewer.open(sys.argv[1:], plugin="napari-tiff")
viewer.layers.selection.active = viewer.layers["cells"]
_layer_actions._convert(viewer.layers, "labels")  # Convert to Labels, in the layer's menu
print(json.dumps([[type(one).__name__, one.name, one.data.tolist(), str(one.data.dtype), list(one.scale),
                   [str(unit) for unit in one.units]] for one in viewer.layers]))
"""


@pytest.fixture
def results(tmp_path):
    """prediction.tif and cells.tif of three slices of 20 x 24 pixels, .05 x .004 x .005 µm, by what is in them."""
    rng = np.random.default_rng(0)
    with stack_writer(tmp_path / "in.tif", (3, 20, 24), np.uint8, voxel=Voxel(0.004, 0.005, 0.05)) as write:
        for _ in range(3):
            write(np.zeros((20, 24), np.uint8))
    samples, cells = StackSamples(tmp_path / "in.tif"), rng.integers(0, 300, (3, 20, 24))
    probability = rng.random((3, 20, 24)).astype(np.float32)
    outputs = Outputs(tmp_path / "prediction.tif", tmp_path / "cells.tif")
    with Cells().writer(outputs, samples) as write:
        for number, sample in enumerate(samples):
            write(Prediction(sample, probability[number], probability[number], cells[number]))
    return {outputs.out: probability, outputs.objects: cells.astype(np.uint16)}


def test_a_reader_of_tiffs_finds_slices_types_and_the_size_of_a_pixel(results):
    for path, stack in results.items():
        with tifffile.TiffFile(path) as tiff:
            series, = tiff.series
            assert (series.axes, series.shape, series.dtype) == ("ZYX", stack.shape, stack.dtype)
            np.testing.assert_array_equal(series.asarray(), stack)
            metadata, tags = tiff.imagej_metadata, tiff.pages[0].tags
            assert (metadata["unit"], metadata["spacing"]) == ("um", 0.05)
            for name, size in (("YResolution", 0.004), ("XResolution", 0.005)):
                pixels, lengths = tags[name].value
                assert lengths / pixels == pytest.approx(size, rel=1e-4)


@pytest.mark.skipif(shutil.which("napari") is None, reason="napari, another program, is not installed")
def test_napari_opens_both_in_their_place_and_size(results):
    python = Path(shutil.which("napari")).with_name("python")
    done = subprocess.run([python, "-c", OPEN, *results], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    layers = json.loads(done.stdout.splitlines()[-1])
    assert [one[:2] for one in layers] == [["Image", "prediction"], ["Labels", "cells"]]
    for (_, _, data, dtype, scale, units), stack in zip(layers, results.values(), strict=True):
        np.testing.assert_array_equal(np.array(data, dtype), stack)
        assert dtype == str(stack.dtype)
        assert scale == pytest.approx([0.05, 0.004, 0.005], rel=1e-4)
        assert units == ["micrometer"] * 3
