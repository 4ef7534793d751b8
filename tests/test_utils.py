"""The ground floor's laws: tiles stitch to the bit, nothing is left half-written, errors are one line."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import utils
from utils import NotLearning, OverlapTile, UserError

ROOT = Path(utils.__file__).parent


def image_of(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def names(folder):
    """What lies in a folder, temporary files too."""
    return sorted(path.name for path in Path(folder).iterdir())


# ------------------------------------------------------------------------------------------------ overlap tiles


def cut(tiles, image):
    return [tiles.tile_at(image, corner) for corner in tiles.corners()]


def stitch(tiles, parts, dtype):
    """Put the cores of tiles, or of what is left of them, together."""
    image = np.zeros((*tiles.shape, *parts[0].shape[2:]), dtype)
    for part, (y, x) in zip(parts, tiles.corners(), strict=True):
        core = tiles.core_of(part, (y, x))
        image[y:y + tiles.cores[0], x:x + tiles.cores[1]] = core
    return image


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
channels = st.sampled_from([(), (1,), (3,)])


@settings(deadline=None, max_examples=40)
@given(shapes, channels, st.integers(1, 20), st.integers(0, 30), st.integers(0, 99))
def test_stitching_the_cut_tiles_gives_the_image_to_the_bit(shape, channels, core, margin, seed):
    image = image_of((*shape, *channels), seed)
    tile = OverlapTile(shape, core, margin)
    tiles = cut(tile, image)
    assert len(tiles) == len(tile)
    assert {(one.shape, one.dtype) for one in tiles} == {((core + 2 * margin,) * 2 + channels, image.dtype)}
    assert_array_equal(stitch(tile, tiles, image.dtype), image)


@settings(deadline=None, max_examples=40)
@given(shapes, channels, st.integers(1, 20), st.integers(0, 30))
def test_tiles_are_windows_of_the_image_as_numpy_mirrors_it(shape, channels, core, margin):
    image = image_of((*shape, *channels))
    tile = OverlapTile(shape, core, margin)
    rows, columns = tile.grid
    ends = ((margin, margin + rows * core - shape[0]), (margin, margin + columns * core - shape[1]))
    mirrored = np.pad(image, ends + ((0, 0),) * len(channels), mode="reflect")
    for part, (y, x) in zip(cut(tile, image), tile.corners(), strict=True):
        assert_array_equal(part, mirrored[y:y + tile.sides[0], x:x + tile.sides[1]])


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(1, 20), st.integers(0, 10), st.data())
def test_a_valid_networks_smaller_tiles_stitch_too(shape, core, margin, data):
    tile = OverlapTile(shape, core, margin)
    lost = data.draw(st.integers(0, margin))  # context that a network without padding eats, each side
    image = image_of(shape)
    inner = slice(lost, tile.sides[0] - lost)
    assert_array_equal(stitch(tile, [part[inner, inner] for part in cut(tile, image)], image.dtype), image)


def test_a_tile_worked_by_hand():
    tile = OverlapTile((1, 3), core=2, margin=1)
    assert tile.grid == (1, 2) and tile.corners() == [(0, 0), (0, 2)] and len(tile) == 2
    left, right = cut(tile, np.array([[1, 2, 3]]))
    assert_array_equal(left, [[2, 1, 2, 3]] * 4)
    assert_array_equal(right, [[2, 3, 2, 1]] * 4)


def test_isbis_slice_in_the_papers_tiles():
    tile = OverlapTile((512, 512), core=388, margin=92)
    assert (tile.sides[0], len(tile), tile.corners()[-1]) == (572, 4, (388, 388))


@pytest.mark.parametrize(("shape", "core", "margin"), [((0, 4), 2, 0), ((4, 4), 0, 0), ((4, 4), 2, -1)])
def test_impossible_tiles_are_refused(shape, core, margin):
    with pytest.raises(ValueError, match="no tiles of core"):
        OverlapTile(shape, core, margin)


def test_other_images_are_refused():
    tile = OverlapTile((5, 5), 3, 2)
    with pytest.raises(ValueError, match=r"images of \(5, 5\), not \(5, 6\)"):
        tile.tile_at(np.zeros((5, 6)), (0, 0))


@settings(deadline=None, max_examples=40)
@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.integers(1, 30), st.integers(0, 9))
def test_tiles_inside_cover_the_image_and_do_not_reach_beyond(shape, core, margin):
    tiles = OverlapTile(shape, core, margin)
    covered = np.zeros(shape, int)
    for y, x in tiles.inside():
        covered[max(y, 0):y + tiles.sides[0], max(x, 0):x + tiles.sides[0]] += 1
        for start, size in ((y, shape[0]), (x, shape[1])):
            room = size - tiles.sides[0]
            assert 0 <= start <= room or (room < 0 and start == room // 2)
    assert covered.all()
    for axis in (0, 1):  # neighbours overlap by both margins or more
        assert np.diff(sorted({corner[axis] for corner in tiles.inside()})).max(initial=0) <= core


# ------------------------------------------------------------------------------------------- writing, all or none


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_replaced_when_whole_or_not_at_all(tmp_path, error, old):
    path = tmp_path / "deep" / "a.txt"
    if old:
        path.parent.mkdir()
        path.write_text(old)
    with pytest.raises((RuntimeError, KeyboardInterrupt, OSError)), utils.atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        raise error
    assert (path.read_text() if path.exists() else None) == old
    assert names(path.parent) == ["a.txt"] * bool(old)
    with utils.atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("old", [None, "old"])
def test_a_folder_is_replaced_when_whole_or_not_at_all(tmp_path, old):
    folder = tmp_path / "results" / "patches"
    if old:
        folder.mkdir(parents=True)
        (folder / "a").write_text(old)
    with pytest.raises(RuntimeError), utils.atomic_folder(folder) as temporary:
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert names(folder.parent) == ["patches"] * bool(old)
    assert not old or ((folder / "a").read_text() == old and names(folder) == ["a"])
    with utils.atomic_folder(folder) as temporary:
        (temporary / "b").write_text("new")
    assert names(folder) == ["b"] and names(folder.parent) == ["patches"]  # nothing of the old one stays


def test_the_old_folder_returns_where_the_new_cannot_take_its_place(tmp_path, monkeypatch):
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "a").write_text("old")
    rename = Path.rename

    def refuse(self, to):
        if not (to.name.endswith(".old") or self.name.endswith(".old")):  # the new folder, on its way to its place
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Permission denied"), utils.atomic_folder(folder) as temporary:
        (temporary / "a").write_text("new")
    assert names(tmp_path) == ["patches"] and (folder / "a").read_text() == "old"


def test_json_comes_back_and_broken_json_says_the_way_out(tmp_path):
    path = tmp_path / "a.json"
    utils.write_json(path, {"slices": [25, 29]})
    assert utils.read_json(path, "run it again") == {"slices": [25, 29]}
    path.write_text('{"slices": [25,')
    with pytest.raises(UserError, match=r"a\.json is not what this project writes .*; run it again$"):
        utils.read_json(path, "run it again")
    with pytest.raises(UserError, match=r"b\.json not found; run it again$"):
        utils.read_json(tmp_path / "b.json", "run it again")


def test_hash_is_sha_256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4's example
    assert utils.file_hash(tmp_path / "a") == known


# -------------------------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize(("error", "status", "line"), [
    (UserError("a.tif not found"), 2, "a.tif not found"),
    (NotLearning("the loss stays at 0.69"), 3, "the loss stays at 0.69"),
    (KeyboardInterrupt(), 130, "nothing is half-written"),
    (OSError(errno.ENOSPC, "No space left on device", "x.npy"), 2, "x.npy: the disk is full"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "the disk is full or its quota"),
    (OSError("262144 requested and 718 written"), 2, "the disk is full or its quota"),
    (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "out: cannot be written or read"),
    (OSError(errno.EROFS, "Read-only file system", "out"), 2, "out: cannot be written or read"),
])
def test_run_leaves_with_one_line_and_its_status(error, status, line, capsys):
    def main():
        raise error
    with pytest.raises(SystemExit) as left:
        utils.run(main)
    assert left.value.code == status
    told = capsys.readouterr().err
    assert line in told and len(told.strip().splitlines()) == 1


def test_run_is_silent_when_done_and_hides_no_bug(capsys):
    utils.run(lambda: None)
    assert capsys.readouterr().err == ""
    with pytest.raises(ZeroDivisionError):
        utils.run(lambda: 1 / 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        utils.run(lambda: os.close(9999))


@pytest.mark.parametrize("write", ["path.write_bytes(bytes(10**6))", "numpy.save(path, numpy.zeros(10**6))"])
def test_a_full_disk_ends_with_one_line_and_the_old_output(tmp_path, write):
    """The system refuses to let a file grow beyond 64 KiB."""
    resource = pytest.importorskip("resource")
    (tmp_path / "a.npy").write_bytes(b"old")
    program = ("import numpy, resource, signal, utils\n"
               "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
               f"resource.setrlimit(resource.RLIMIT_FSIZE, (65536, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))\n"
               "def main():\n"
               "    with utils.atomic_path('a.npy') as path:\n"
               f"        {write}\n"
               "utils.run(main)\n")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert (tmp_path / "a.npy").read_bytes() == b"old"
    assert names(tmp_path) == ["a.npy"]


def test_too_little_space_is_said_before_anything_is_written(tmp_path):
    assert utils.require_space(tmp_path / "not" / "yet", 1) is None
    with pytest.raises(UserError, match=r"1000000000\.0 GB are needed and .* are free"):
        utils.require_space(tmp_path / "not" / "yet", 10**18)
    assert names(tmp_path) == []


def test_numbers_of_the_command_line_are_checked():
    assert utils.at_least(1)("7") == 7
    assert utils.at_least(0.1, float)("1.5") == 1.5
    for text, reason in (("0", "0 is not a whole number of 1 or more"), ("x", "x is not"), ("nan", "nan is not")):
        with pytest.raises(utils.argparse.ArgumentTypeError, match=reason):
            utils.at_least(1)(text)


@pytest.mark.skipif(sys.platform == "win32", reason="closed pipes give other errors there")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("call", "said"), [("print('x')", ""), ("os.write(other, b'x')", "BrokenPipeError")])
def test_a_reader_that_has_read_enough_is_no_error_but_another_broken_pipe_is(unbuffered, call, said):
    read, write = os.pipe()
    code = f"import os\nfrom utils import run\nbeside, other = os.pipe()\nos.close(beside)\nrun(lambda: {call})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=write if not said else subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONUNBUFFERED": unbuffered}) as process:
        os.close(read)
        os.close(write)
        errors = process.communicate()[1]
    assert process.returncode == 1
    assert said in errors if said else errors == ""
