"""What `make` decides, case by case, and that nothing of the user's is lost by it: the scripts are stand-ins here."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_stacks

from unet import pipeline
from unet.inputs.demo import DEMO_FILES, demo_files
from unet.inputs.stacks import LABELS, TEST, VOLUME, write_stack
from utils import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A project folder with an empty data/, as git leaves it; demo stacks are small, scripts are only written down."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "README.md").write_text("what lies here")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("unet.inputs.demo.demo_stack", lambda slices, size, seed: (
        *draw_stacks(slices, 64, seed), draw_stacks(slices, 64, seed)[1]))
    return folder


@pytest.fixture
def make(here, monkeypatch, capsys):
    """Call `make`'s command; gives its exit status, the scripts' command lines, and what was printed."""
    def call(command="run", statuses=(0, 0, 0), **options):
        calls, left = [], list(statuses)
        monkeypatch.setattr(pipeline, "call", lambda words: calls.append(words) or left.pop(0))
        monkeypatch.setattr("sys.argv", ["pipeline.py", command, *(f"--{name}={value}" for name, value in
                                                                   options.items())])
        try:
            pipeline.main()
            status = 0
        except SystemExit as end:
            status = end.code
        return status, calls, capsys.readouterr().out
    return call


def put(folder, *names, slices=6, size=64):
    """Write the user's stacks of these names into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = draw_stacks(slices, size)
    for name in names:
        write_stack(folder / name, labels if "labels" in name else images)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --------------------------------------------------------------------------------------------------- which data


def test_an_empty_data_folder_means_the_demo_and_all_of_it_goes_to_its_own_folder(make, here):
    status, calls, text = make(augment="--copies 4")
    assert status == 0
    assert calls == [["augmentation.py", "--data", "data/demo", "--work", "results/demo", "--copies", "4"],
                     ["preprocessing.py", "--work", "results/demo"],
                     ["train.py", "--work", "results/demo", "--out", "results/demo/prediction.tif", "--preset", "fast"]]
    assert len(demo_files(here / "data" / "demo")) == len(DEMO_FILES)
    assert "the demo stack, which is synthetic; put your own into data. The run's files go to results/demo" in text


def test_a_demo_that_is_there_is_not_made_again(make, here, monkeypatch):
    make(augment="--copies 4")
    monkeypatch.setattr(pipeline, "make_demo", None)
    assert make(augment="--copies 4")[0] == 0


def test_three_stacks_are_the_users(make, here):
    put(here / "data", VOLUME, LABELS, TEST)
    status, calls, text = make()
    assert status == 0
    assert calls == [["augmentation.py", "--data", "data", "--work", "results"],
                     ["preprocessing.py", "--work", "results"],
                     ["train.py", "--work", "results", "--preset", "auto"]]
    assert "== Data: data, a folder of TIFF stacks, 6 slices with labels" in text


def test_options_reach_their_scripts_as_they_were_written(make, here):
    put(here / "my stacks", VOLUME, LABELS, TEST)
    _, calls, _ = make(data="my stacks", work="trial", out="a b.tif", augment='--holdout "3, 5"',
                       tile="--weights border", train="--resume")
    assert calls == [["augmentation.py", "--data", "my stacks", "--work", "trial", "--holdout", "3, 5"],
                     ["preprocessing.py", "--work", "trial", "--weights", "border"],
                     ["train.py", "--work", "trial", "--out", "a b.tif", "--preset", "auto", "--resume"]]


@pytest.mark.parametrize("names", [(VOLUME, LABELS), (VOLUME, LABELS, "test-volume.tiff"), ("test-volume.png",),
                                   (LABELS,), ("old/" + VOLUME,)], ids=" ".join)
def test_anything_else_in_data_stops_with_what_the_check_says(make, here, names, capsys):
    for name in names:
        put((here / "data" / name).parent, Path(name).name)
    before = contents(here)
    with pytest.raises(UserError, match=r"data cannot be used as it is, so nothing was run; fix .* 'make DATA=data/d"):
        make()
    text = capsys.readouterr().out
    assert f"{TEST} is missing" in text
    assert ("Rename test-volume.tiff" in text) == ("test-volume.tiff" in names)
    assert contents(here) == before  # no demo, no run


def test_a_broken_stack_is_described_too(make, here, capsys):
    put(here / "data", VOLUME, LABELS, TEST)
    (here / "data" / LABELS).write_bytes((here / "data" / LABELS).read_bytes()[:3000])
    with pytest.raises(UserError, match="nothing was run"):
        make()
    assert f"{LABELS} cannot be read as a TIFF stack" in capsys.readouterr().out


def test_hidden_files_are_nobodys_data(make, here):
    (here / "data" / ".DS_Store").write_bytes(b"\0")
    assert make(augment="--copies 4")[1][0][2] == "data/demo"


@pytest.mark.parametrize("spelling", ["data/demo", "data/demo/", "./data/demo", "data/../data/demo",
                                      "{here}/data/demo"])
def test_the_demo_is_the_demo_however_it_is_spelled(make, here, spelling):
    put(here / "data", VOLUME, LABELS, TEST)
    _, calls, _ = make(data=spelling.format(here=here), augment="--copies 4")
    assert calls[2][1:] == ["--work", "results/demo", "--out", "results/demo/prediction.tif", "--preset", "fast"]


def test_the_demo_can_be_told_where_to_go(make, here):
    _, calls, _ = make(data="data/demo", work="trial", preset="cpu")
    assert calls[2][1:] == ["--work", "trial", "--out", "trial/prediction.tif", "--preset", "cpu"]


def test_somebodys_stacks_in_the_demos_folder_stay(make, here):
    put(here / "data" / "demo", VOLUME, LABELS, TEST)
    before = contents(here)
    with pytest.raises(UserError, match=r"data/demo has .* already, not made by"):
        make()
    assert contents(here) == before


def test_a_folder_of_nuclei_runs_with_the_tasks_own_output(make, here, nuclei_folder):
    _, calls, text = make(data=nuclei_folder)
    assert calls[0][1:] == ["--data", str(nuclei_folder), "--work", "results"]
    assert calls[2][1:] == ["--work", "results", "--preset", "auto"]
    assert "a folder of images with masks, 8 images with labels" in text


def test_nuclei_in_data_are_the_users(make, here, nuclei_folder):
    shutil.copytree(nuclei_folder, here / "data", dirs_exist_ok=True)
    assert make()[1][0][1:] == ["--data", "data", "--work", "results"]


def test_a_folder_that_is_not_there_is_one_clear_line(make):
    with pytest.raises(UserError, match=r"nowhere is not a folder.*; 'python datasets.py isbi' downloads"):
        make(data="nowhere")


# ------------------------------------------------------------------------------------------------------ copies


def copies(calls):
    words = calls[0]
    return float(words[words.index("--copies") + 1]) if "--copies" in words else None


SHORT = "--epochs 2 --steps 10 --batch 3"  # reads 60 tiles; of 6 slices of 64x64, 5 train


@pytest.mark.parametrize(("options", "expected"), [
    ({"train": SHORT, "tile": "--tile 64 --margin 8"}, 11),  # 12 pages a slice, the original among them
    ({"train": SHORT, "tile": "--tile 32 --margin 0"}, 2),  # 4 tiles a page
    ({"train": SHORT, "tile": "--tile 64 --margin 8", "augment": "--holdout none"}, 9),
    ({"train": "--epochs 1 --steps 2 --batch 1"}, 0.4),  # 2 copies of 5 slices, which have 5 tiles unchanged
    ({}, 30),  # 2,000 tiles of 5 slices: the default 30 copies are fewer
    ({"train": SHORT, "augment": "--copies 7"}, 7),
    ({"train": f"{SHORT} --preset auto"}, 11),
    ({"train": "--preset auto"}, None),
    ({"train": "--preset auto", "tile": "--tile 8 --margin 0"}, 30),
], ids=["a tile a page", "four tiles a page", "no hold-out", "fewer than slices", "the default at most",
        "the user's own", "the machine's preset", "the usual schedule and tiles", "the usual schedule"])
def test_copies_follow_what_the_schedule_reads(make, here, options, expected):
    put(here / "data", VOLUME, LABELS, TEST)
    _, calls, text = make(preset="fast", **options)
    assert copies(calls) == expected
    assert ("instead of 30" in text) == (expected not in (30, 7, None))


def test_the_fast_preset_reads_four_copies_of_slices_like_isbis(make, here):
    """5 epochs of 48 steps of 4 tiles = 960; 25 slices of 512x512 give 9 tiles a page: 4.3 pages each."""
    put(here / "data", VOLUME, LABELS, TEST, slices=30, size=512)
    _, calls, text = make(preset="fast")
    assert copies(calls) == 4
    assert "Training reads 960 tiles: 4 copies of each slice are enough, instead of 30 of each" in text


def test_squeezed_nuclei_are_never_augmented_unasked(make, here, nuclei_folder):
    assert copies(make(data=nuclei_folder, preset="nuclei", augment="--resize 64")[1]) == 0


def test_a_preset_that_is_not_there_is_said_before_the_work(make, here):
    put(here / "data", VOLUME, LABELS, TEST)
    with pytest.raises(UserError, match="no preset fats; choose auto, fast, cpu"):
        make(preset="fats")


# ------------------------------------------------------------------------------------------------- exit status


@pytest.mark.parametrize(("statuses", "count", "status"), [((2,), 1, 2), ((0, 2), 2, 2), ((0, 0, 3), 3, 3),
                                                           ((0, 0, 130), 3, 130)])
def test_the_first_failure_stops_with_its_status(make, here, statuses, count, status):
    put(here / "data", VOLUME, LABELS, TEST)
    ended, calls, _ = make(statuses=statuses)
    assert (ended, len(calls)) == (status, count)


def test_ctrl_c_is_the_scripts_to_answer(tmp_path, monkeypatch):
    """A terminal interrupts both; here the script does so, saves, and ends as it wants."""
    (tmp_path / "script.py").write_text("import os, signal, sys\n"
                                        "os.kill(os.getppid(), signal.SIGINT)\n"
                                        "try:\n"
                                        "    os.kill(os.getpid(), signal.SIGINT)\n"
                                        "except KeyboardInterrupt:\n"  # its own handler, not its parent's
                                        "    open('saved', 'w').close()\n"
                                        "    sys.exit(130)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    before = signal.getsignal(signal.SIGINT)
    assert pipeline.call(["script.py"]) == 130
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGINT) is before


# -------------------------------------------------------------------------------------------- report and clean


def test_the_report_is_about_the_last_run(make, here):
    (here / "results" / "demo").mkdir(parents=True)
    assert make("report")[1] == [["report.py", "--work", "results/demo"]]
    (here / "results" / "config.json").write_text("{}")
    assert make("report")[1] == [["report.py", "--work", "results"]]
    assert make("report", work="trial", out="b.tif")[1] == [["report.py", "--work", "trial", "--out", "b.tif"]]


def test_clean_says_what_went_and_what_stays(make, here):
    make(augment="--copies 4")
    put(here / "data", VOLUME)
    (here / "results" / "demo" / "augmented").mkdir(parents=True)
    (here / "results" / "demo" / "augmented" / "manifest.json").write_text('{"inputs": 0, "split": 0, "samples": 0}')
    (here / "results" / "mine.txt").write_text("mine")
    _, _, text = make("clean")
    assert set(contents(here)) == {"data/README.md", f"data/{VOLUME}", "results/mine.txt"}
    assert text.splitlines() == ["results/demo: 1 files removed",
                                 "results: 0 files removed; other files stay: mine.txt",
                                 f"data/demo: {len(DEMO_FILES) + 1} files removed"]
    assert "nothing to remove" in make("clean")[2]


def test_clean_keeps_what_was_put_into_the_demos_folder(make, here):
    make(augment="--copies 4")
    put(here / "data" / "demo", LABELS)  # drawn over the demo's
    make("clean")
    assert set(contents(here / "data" / "demo")) == {LABELS}


def test_pictures_are_drawn_from_the_demos_run_which_is_made_once(make, here, monkeypatch):
    put(here / "data", VOLUME, LABELS, TEST)  # the user's are not shown
    drawn = []
    monkeypatch.setattr(pipeline, "run_python", lambda words: drawn.append(words) or 0)
    status, calls, _ = make("images")
    assert (status, [words[0] for words in calls]) == (0, ["augmentation.py", "preprocessing.py", "train.py"])
    assert calls[2][1:] == ["--work", "results/demo", "--out", "results/demo/prediction.tif", "--preset", "fast"]
    assert drawn == [["-m", "unet.report.figures", "--work", "results/demo"]]
    (here / "results" / "demo").mkdir(parents=True)
    (here / "results" / "demo" / "metrics.json").touch()
    assert make("images", statuses=())[:2] == (0, [])
    assert len(drawn) == 2


def test_the_command_line_itself(here):
    """As make calls it: through the module, where the user stands."""
    done = subprocess.run([sys.executable, "-m", "unet.pipeline", "run", "--data=nowhere"], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=600)
    assert done.returncode == 2
    assert done.stderr.startswith(f"make: nowhere is not a folder in {here}; ")
    assert done.stderr.count("\n") == 1
