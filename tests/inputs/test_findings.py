"""What the doctor found, in words: numbers of slices in runs, and a verdict at the end."""

import numpy as np
import pytest
import tifffile

from unet.inputs.doctor import examine_stacks
from unet.inputs.findings import format_findings, list_slices
from unet.inputs.stacks import LABELS


def test_slice_numbers_are_listed_in_runs():
    assert list_slices([9, 3, 4, 5]) == "3-5, 9"
    assert list_slices(range(0, 60, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, ..."


@pytest.mark.parametrize(("change", "verdict"), [
    (lambda labels: labels, "Ready to train."),
    (lambda labels: labels[:, :32], "1 problem must be fixed first."),
    (lambda labels: np.concatenate([labels[:5], labels[:1]]), "Ready to train; 2 things are worth a look first."),
])
def test_the_verdict(tiny_folder, change, verdict):
    labels = change(tifffile.imread(tiny_folder / LABELS))
    tifffile.imwrite(tiny_folder / LABELS, labels, photometric="minisblack")
    findings = examine_stacks(tiny_folder, lambda labels: True)
    assert format_findings(tiny_folder, findings).endswith(f"\n{verdict}")
