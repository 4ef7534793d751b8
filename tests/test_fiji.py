"""The macro and the script for Fiji run in ImageJ without a window, and ImageJ fills our outlines as we do."""

import csv
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile

from unet.inputs import rois

ROOT = Path(__file__).resolve().parent.parent
FIJI = ROOT / "docs" / "fiji"
JARS = [Path("/usr/share/java") / name for name in ("ij.jar", "groovy-all.jar")]  # where Debian puts them
FILL = """
newImage("filled", "16-bit black", {width}, {height}, {slices});
roiManager("open", getArgument() + "/RoiSet.zip");
for (i = 0; i < roiManager("count"); i++) {{
    roiManager("select", i);
    name = Roi.getName;
    setSlice(parseInt(substring(name, 0, 4)));
    value = 1000 + i;
    if (endsWith(name, "-hole")) value = 0;
    run("Set...", "value=" + value + " slice");
}}
run("Select None");
saveAs("tiff", getArgument() + "/filled.tif");
"""
needs_imagej = pytest.mark.skipif(not (shutil.which("imagej") and shutil.which("xvfb-run")),
                                  reason="ImageJ and a virtual display are not installed; .ci/run installs them")
needs_groovy = pytest.mark.skipif(not (shutil.which("java") and all(jar.is_file() for jar in JARS)),
                                  reason="ImageJ and Groovy are not installed; .ci/run installs them")
pytest.importorskip("roifile", reason="roifile is not installed; requirements-labels.txt has it")


def cells():
    """Numbers uint16 (2, 20, 24): touching cells, one with a hole, one in two pieces, one of a single pixel."""
    stack = np.zeros((2, 20, 24), np.uint16)
    stack[0, 2:14, 2:12] = 1
    stack[0, 5:11, 4:10] = 0
    stack[0, 2:9, 12:20] = 3
    stack[0, 17, 5] = 4
    stack[1, 10:20, 0:9] = 1
    stack[1, 2:5, 2:5] = stack[1, 5:7, 5:9] = 2
    return stack


@pytest.fixture
def results(tmp_path):
    """A folder with prediction.tif, whose pixels are .25 µm wide and 2 µm apart in z, and cells.tif."""
    tifffile.imwrite(tmp_path / "cells.tif", cells(), imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "prediction.tif", cells().astype(np.float32) / 4, imagej=True, resolution=(4, 4),
                     metadata={"axes": "ZYX", "unit": "micron", "spacing": 2.0})
    return tmp_path


def imagej(macro, folder):
    """Run a macro in ImageJ, on a display that nobody sees."""
    return subprocess.run(["xvfb-run", "-a", "imagej", "-b", str(macro), str(folder)], capture_output=True, text=True,
                          timeout=600)


def same_partition(one, other):
    """Whether two arrays of numbers have the same objects, whatever their numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@needs_imagej
def test_the_macro_outlines_every_cell_on_a_calibrated_prediction(results):
    done = imagej(FIJI / "open_results.ijm", results)
    assert "5 cells; a pixel is 0.25 x 0.25 micron" in done.stdout, done.stdout + done.stderr
    numbers = rois.read_rois(results / "outlines.zip", cells().shape)
    for one, other in zip(numbers, cells(), strict=True):
        assert same_partition(one, other)
    with tifffile.TiffFile(results / "prediction-outlines.tif") as tiff:
        metadata, resolution = tiff.imagej_metadata, tiff.pages[0].tags["XResolution"].value
    assert (metadata["unit"], metadata["spacing"], resolution[0] / resolution[1]) == ("micron", 2.0, 4)
    assert (metadata["min"], metadata["max"], len(metadata["Overlays"])) == (0, 1, 5)
    before = (results / "outlines.zip").read_bytes()
    again = imagej(FIJI / "open_results.ijm", results)
    assert "outlines.zip is there already; move it away" in again.stdout + again.stderr
    assert (results / "outlines.zip").read_bytes() == before


@needs_imagej
def test_imagej_fills_our_outlines_as_we_do(results, tmp_path):
    rois.write_rois(results / "RoiSet.zip", cells())
    slices, height, width = cells().shape
    (tmp_path / "fill.ijm").write_text(FILL.format(slices=slices, height=height, width=width))
    done = imagej(tmp_path / "fill.ijm", results)
    assert (results / "filled.tif").is_file(), done.stdout + done.stderr
    filled = tifffile.imread(results / "filled.tif")
    assert np.array_equal(filled > 0, cells() > 0)
    assert same_partition(filled[0], cells()[0])


@needs_groovy
def test_the_script_measures_every_cell(results):
    command = ["java", "-Djava.awt.headless=true", "-cp", ":".join(map(str, JARS)), "groovy.ui.GroovyMain",
               str(FIJI / "measure_cells.groovy"), str(results)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert "5 cells, areas in square micron" in done.stdout, done.stdout + done.stderr
    with open(results / "cells-measured.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    expected = [(number + 1, cell, np.count_nonzero(page == cell) / 16, cell / 4)
                for number, page in enumerate(cells()) for cell in np.unique(page[page > 0]).tolist()]
    np.testing.assert_allclose([list(row.values()) for row in rows], expected, atol=1e-3)
    with tifffile.TiffFile(results / "prediction-measured.tif") as tiff:
        assert len(tiff.imagej_metadata["Overlays"]) == 5
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode != 0
    assert "cells-measured.csv is there already; move it away" in again.stdout + again.stderr
