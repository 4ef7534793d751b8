"""What tests of several rooms call by name."""

from pathlib import Path

import nbformat
import numpy as np
from scipy import ndimage

NOTEBOOK = Path(__file__).resolve().parent.parent / "jupyter.ipynb"


def code_cells(path):
    """The code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def every_cell_passed(path):
    executed, committed = code_cells(path), code_cells(NOTEBOOK)
    assert [cell.source for cell in executed] == [cell.source for cell in committed]
    assert [cell.execution_count for cell in executed] == list(range(1, len(executed) + 1))
    for cell in executed[1:]:  # the first only imports
        assert [output.output_type for output in cell.outputs] == ["execute_result" if "Markdown" in cell.source
                                                                   else cell.outputs[0].output_type], cell.source
        assert {"image/jpeg", "text/markdown"} & set(cell.outputs[0].data), cell.source


def noisy_stack(count=3):
    """Probabilities float32 and labels uint8 (count, 24, 24): four cells, their borders blurred and noisy."""
    rng = np.random.default_rng(1)
    labels = np.full((count, 24, 24), 255, np.uint8)
    labels[:, 11:13] = labels[:, :, 9:11] = 0
    blurred = ndimage.gaussian_filter(labels / 255, (0, 1, 1)) + rng.normal(0, 0.12, labels.shape)
    return np.clip(blurred, 0, 1).astype(np.float32), labels
