"""The command: what it prints, its exit status, and that both layouts are examined."""

import numpy as np
import pytest
import tifffile
from conftest import draw_slices, draw_stacks, write_png, write_two_folders

import datasets
from unet.inputs.stacks import LABELS, TEST, VOLUME, write_stack
from utils import UserError


@pytest.fixture
def command(monkeypatch, capsys):
    """Call the command in this process; gives its exit status and what it printed."""
    def call(*words):
        monkeypatch.setattr("sys.argv", ["datasets.py", *map(str, words)])
        try:
            datasets.main()
            status = 0
        except SystemExit as end:
            status = end.code
        return status, capsys.readouterr().out
    return call


def test_the_demo_is_made_where_it_is_asked_for(command, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(datasets, "make_demo", lambda folder, seed: asked.append((folder, seed)) or [folder / VOLUME])
    status, text = command("demo", "--data", tmp_path, "--seed", 3)
    assert (status, asked) == (0, [(tmp_path, 3)])
    assert f"{tmp_path}: {VOLUME}; the stack is synthetic" in text


def test_the_download_command_says_what_it_got(command, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "download_isbi", lambda folder, url: [folder / name for name in (VOLUME, url)])
    assert command("isbi", "--data", tmp_path, "--url", "there") == (
        0, f"{tmp_path}: {VOLUME}, there. Please cite what data/README.md names\n")


def test_stacks_that_are_ready(command, tiny_folder):
    status, text = command("check", tiny_folder)
    assert status == 0
    assert text.endswith("\nReady to train.\n")


def test_two_of_three_stacks_are_a_problem_and_the_status_says_so(command, tiny_folder):
    (tiny_folder / TEST).rename(tiny_folder / "test-volume.tiff")
    status, text = command("check", tiny_folder)
    assert status == 2
    assert "Rename test-volume.tiff" in text
    assert text.endswith("\n1 problem must be fixed first.\n")


def test_separate_objects_need_not_be_in_every_slice(command, tiny_folder):
    """Discs on background, dense enough to fill a third of the slice; none in slice 2."""
    y, x = np.indices((64, 64))
    discs = (y % 16 - 8) ** 2 + (x % 16 - 8) ** 2 < 25
    labels = np.stack([np.roll(discs, number) for number in range(6)]).astype(np.uint8) * 255
    labels[2] = 0
    rng = np.random.default_rng(0)
    tifffile.imwrite(tiny_folder / LABELS, labels, photometric="minisblack")
    tifffile.imwrite(tiny_folder / VOLUME, (labels // 3 + rng.integers(20, 60, labels.shape)).astype(np.uint8),
                     photometric="minisblack")
    status, text = command("check", tiny_folder)
    assert status == 0
    assert f"{LABELS}: no object in slices 2" in text


def test_a_folder_of_images_is_described_by_modality(command, nuclei_folder):
    status, text = command("check", nuclei_folder)
    assert status == 0
    assert "8 images with masks" in text
    assert "histology: 2 images of 64x80 pixels (y, x), 24 objects, 12 in each" in text
    assert "fluorescence: 4 images of 50x96 to 80x70 pixels" in text
    assert "- test0 has no masks: it is predicted, not trained on" in text
    assert text.endswith("\nReady to train.\n")


def test_two_folders_are_described_and_say_what_their_labels_are(command, tmp_path):
    pairs = draw_slices([(64, 64), (50, 70)])
    status, text = command("check", write_two_folders(tmp_path / "good", pairs, {"new": pairs["cell1"][0]}))
    assert status == 0
    assert "2 images with labels, all of which can be read" in text
    assert "labels are taken as cells" in text
    assert "new has no label: it is predicted" in text
    assert "gaps" not in text
    image, label = pairs["cell0"]
    row = int(np.argmin(label[:, 4]))  # the first wall's upper edge, four pixels above its lower one
    cut = label.copy()
    cut[row:row + 4, 4:6] = 255
    status, text = command("check", write_two_folders(tmp_path / "gap", {**pairs, "cell0": (image, cut)}))
    assert status == 0
    assert "seems to have gaps: cell0 at y" in " ".join(text.split())
    pairs["cell1"] = (pairs["cell1"][0], pairs["cell1"][1] // 2)
    status, text = command("check", write_two_folders(tmp_path / "grey", pairs))
    assert status == 2
    assert "labels have 3 values (0, 127, 255)" in " ".join(text.split())


def test_labels_of_classes_are_checked_as_such(command, tmp_path):
    images, labels = draw_stacks(6, 64)
    for name, stack in ((VOLUME, images), (TEST, images[::-1] // 2), (LABELS, np.where(labels, 1 + (images > 90), 0))):
        write_stack(tmp_path / name, stack.astype(np.uint8))
    status, text = command("check", tmp_path)
    assert (status, "0, 1, 2, ... with --classes" in " ".join(text.split())) == (2, True)
    status, text = command("check", tmp_path, "--classes", 3)
    assert (status, "labels are taken as classes" in text, "membrane" in text) == (0, True, False)
    status, text = command("check", tmp_path, "--classes", 2)
    assert (status, "expected whole numbers from 0 to 1 for --classes 2" in " ".join(text.split())) == (2, True)
    (tmp_path / TEST).unlink()
    status, text = command("check", tmp_path, "--classes", 3)
    assert (status, f"{TEST} is missing" in text) == (2, True)
    pairs = {name: (image, label // 255) for name, (image, label) in draw_slices([(64, 64), (50, 70)]).items()}
    status, text = command("check", write_two_folders(tmp_path / "pairs", pairs), "--classes", 2)
    assert (status, "labels are taken as classes" in text) == (0, True)


def test_an_image_that_stops_step_1_stops_the_check(command, nuclei_folder):
    write_png(nuclei_folder / "fluo0" / "masks" / "odd.png", np.ones((64, 63), np.uint8))
    with pytest.raises(UserError, match=r"odd\.png is 64x63 pixels"):
        command("check", nuclei_folder)


def test_an_image_that_stops_the_last_step_stops_the_check(command, tmp_path):
    folder = write_two_folders(tmp_path / "data", draw_slices([(64, 64), (50, 70)]))
    (folder / "images" / "new.tif").write_text("no image")
    with pytest.raises(UserError, match=r"new\.tif cannot be read as a TIFF stack"):
        command("check", folder)


def test_checking_a_folder_that_is_not_there_is_one_line(script):
    done = script("datasets.py", "check", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("datasets.py: nowhere is not a folder; 'python datasets.py isbi'")
    assert len(done.stderr.splitlines()) == 1
