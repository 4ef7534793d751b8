"""Whatever comes in, the user gets either data or one line that names the file, the fault and the way out."""

import http.server
import io
import socket
import threading
import zipfile

import numpy as np
import pytest
import tifffile
from conftest import draw_stacks
from numpy.testing import assert_array_equal

import datasets
from datasets import choose_holdout, download_isbi, read_dataset, read_images, read_labels
from unet.inputs.stacks import LABELS, TEST, VOLUME
from utils import UserError, file_hash


def save(path, stack, **options):
    tifffile.imwrite(path, stack, photometric="minisblack", **options)


def contents(folder):
    """Name and bytes of all that lies in a folder, hidden files too."""
    return {path.name: path.read_bytes() if path.is_file() else "folder" for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------ good data


def test_a_good_folder_is_read_as_it_is(tiny_folder):
    data = read_dataset(tiny_folder)
    images, labels = draw_stacks()
    assert_array_equal(data.images, images)
    assert_array_equal(data.labels, labels)
    assert data.images.dtype == data.labels.dtype == np.uint8 and data.notes == []
    assert data.hashes() == {str((tiny_folder / name).resolve()): file_hash(tiny_folder / name)
                             for name in (VOLUME, LABELS)}


def test_isbi_is_read(isbi_folder):
    data = read_dataset(isbi_folder)
    assert data.images.shape == data.labels.shape == (30, 512, 512)
    assert set(np.unique(data.labels)) == {0, 255} and data.notes == []


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.uint16, np.float32])
def test_labels_of_0_and_1_are_accepted_and_said(tiny_folder, dtype):
    expected = tifffile.imread(tiny_folder / LABELS)
    save(tiny_folder / LABELS, (expected == 255).astype(dtype))
    data = read_dataset(tiny_folder)
    assert_array_equal(data.labels, expected)
    assert data.notes == [f"{tiny_folder / LABELS}: labels are 0 and 1; taken as 0 = membrane, 1 = cell"]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_deeper_images_are_reduced_to_8_bit_and_said(tiny_folder, dtype):
    ramp = np.linspace(0, 4000, 64 * 64).reshape(1, 64, 64).astype(dtype)
    save(tiny_folder / VOLUME, np.repeat(ramp, 6, axis=0))
    notes = []
    images = read_images(tiny_folder / VOLUME, notes)
    assert images.dtype == np.uint8
    assert abs(int(images[0, 32, 0]) - 128) <= 1 and images.min() == 0 and images.max() == 255
    assert np.count_nonzero(np.diff(images[0].ravel().astype(int)) < 0) == 0  # brighter stays brighter
    assert len(notes) == 1 and f"{np.dtype(dtype)} values were reduced to 8 bit: " in notes[0]
    low, high = (float(part.split()[-1]) for part in notes[0].split(" became ")[:2])
    assert low == pytest.approx(4, abs=1) and high == pytest.approx(3996, abs=1)
    assert_array_equal(read_images(tiny_folder / VOLUME), images)


def test_a_flat_deep_image_divides_by_nothing(tmp_path):
    save(tmp_path / "a.tif", np.full((2, 8, 8), 900, np.uint16))
    assert set(np.unique(read_images(tmp_path / "a.tif"))) == {0}


def test_two_valued_images_become_black_and_white(tmp_path):
    save(tmp_path / "a.tif", np.eye(8, dtype=bool))
    assert_array_equal(read_images(tmp_path / "a.tif"), 255 * np.eye(8, dtype=np.uint8)[None])


def test_a_single_page_is_a_stack_of_one(tiny_folder):
    for name in (VOLUME, LABELS):
        save(tiny_folder / name, tifffile.imread(tiny_folder / name)[0])
    data = read_dataset(tiny_folder)
    assert data.images.shape == data.labels.shape == (1, 64, 64)
    assert choose_holdout(1) == []


def test_inverted_labels_are_noted(tiny_folder):
    save(tiny_folder / LABELS, 255 - tifffile.imread(tiny_folder / LABELS))
    [note] = read_dataset(tiny_folder).notes
    assert "look inverted" in note and "Edit > Invert" in note


# ------------------------------------------------------------------------------------------------ bad data


def test_a_missing_folder_names_the_commands_that_make_one(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is no folder; 'python datasets.py isbi' .* datasets.py demo'"):
        read_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "reason"), [
    (VOLUME, "not found; 'python datasets.py isbi' downloads"), (LABELS, "not found; 'python datasets.py isbi' downl"),
    (TEST, "not found: it is the stack that is segmented into prediction.tif; put yours there")])
def test_a_missing_file_is_named(tiny_folder, name, reason):
    (tiny_folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} {reason}"):
        read_dataset(tiny_folder)


@pytest.mark.parametrize(("change", "reason"), [
    (lambda labels: labels[:5], f"{VOLUME} has 6 slices but {LABELS} has 5; every image needs"),
    (lambda labels: labels[:, :32], f"{VOLUME} is 64x64 pixels but {LABELS} is 32x64"),
    (lambda labels: np.where(labels == 0, 3, labels), r"labels have 2 values \(3, 255\), expected the two 0 = m"),
    (lambda labels: np.where(labels == 0, 0, 7), r"labels have 2 values \(0, 7\).*Adjust > Threshold"),
    (lambda labels: labels // 255 + np.arange(64) % 9, r"labels have 10 values \(0, 1, 2, 3, 4, 5, \.\.\.\)"),
    (lambda labels: np.where(np.arange(6)[:, None, None] > 3, 255, labels), "slice 4, 5 is cell everywhere, as"),
    (lambda labels: np.where(np.arange(6)[:, None, None] == 2, 0, labels), "slice 2 is membrane everywhere.*label it"),
    (np.zeros_like, r"every pixel is 0, expected membrane \(0\) and cell \(255\)"),
    (lambda labels: np.full_like(labels, 255), "every pixel is 255"),
    (lambda labels: np.stack([labels] * 3, axis=-1), "has 3 channels, expected labels of one; in Fiji: Image > Type"),
    (lambda labels: np.where(labels == 0, np.nan, 255), r"labels have 2 values \(255, nan\)"),
])
def test_labels_that_cannot_be_used_are_refused(tiny_folder, change, reason):
    changed = change(tifffile.imread(tiny_folder / LABELS))
    changed = changed.astype(np.float32 if changed.dtype.kind == "f" else np.uint8)
    tifffile.imwrite(tiny_folder / LABELS, changed, photometric="rgb" if changed.ndim == 4 else "minisblack")
    with pytest.raises(UserError, match=reason) as error:
        read_dataset(tiny_folder)
    assert "\n" not in str(error.value) and LABELS in str(error.value)


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "NaN or infinite"), (-np.inf, "NaN or infinite")])
def test_images_with_pixels_that_are_not_numbers_are_refused(tiny_folder, value, reason):
    images = tifffile.imread(tiny_folder / VOLUME).astype(np.float32)
    images[3, 5, 5] = value
    save(tiny_folder / VOLUME, images)
    with pytest.raises(UserError, match=f"{VOLUME} has pixels that are not numbers .{reason}.*; in Fiji"):
        read_dataset(tiny_folder)


def test_colour_images_are_refused(tiny_folder):
    stack = np.stack([tifffile.imread(tiny_folder / VOLUME)] * 3, axis=-1)
    tifffile.imwrite(tiny_folder / VOLUME, stack, photometric="rgb")
    with pytest.raises(UserError, match=f"{VOLUME} has 3 channels, expected gray images of one; in Fiji: Image > Type"):
        read_dataset(tiny_folder)


@pytest.mark.parametrize("name", [VOLUME, LABELS])
@pytest.mark.parametrize("damage", ["cut short", "text", "empty", "folder"])
def test_files_that_are_no_stack_are_refused(tiny_folder, name, damage):
    path = tiny_folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"cut short": content[:-3000], "text": b"membranes, drawn by hand\n", "empty": b""}[damage])
    reason = {"cut short": "cannot be read as a TIFF stack", "text": "cannot be read as a TIFF stack",
              "empty": r"is empty \(0 bytes\); copy it again", "folder": "not found"}[damage]
    with pytest.raises(UserError, match=f"{name} {reason}") as error:
        read_dataset(tiny_folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_isbis_own_files_cut_short_are_refused(isbi_folder, tmp_path, share):
    for name, read in ((VOLUME, read_images), (LABELS, read_labels)):
        content = (isbi_folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[:int(len(content) * share)])
        with pytest.raises(UserError, match=f"{name} cannot be read as a TIFF stack"):
            read(tmp_path / name)


# ------------------------------------------------------------------------------------------------ the hold-out


@pytest.mark.parametrize(("count", "held_out"), [(30, [25, 26, 27, 28, 29]), (6, [5]), (2, [1]), (1, [])])
def test_the_last_slices_are_held_out(count, held_out):
    assert choose_holdout(count) == held_out


@pytest.mark.parametrize("count", range(1, 60))
def test_most_slices_always_train(count):
    held_out = choose_holdout(count)
    assert len(held_out) <= count / 2 and len(held_out) <= 5
    assert held_out == list(range(count - len(held_out), count))


@pytest.mark.parametrize(("text", "held_out"), [("25-29", [25, 26, 27, 28, 29]), ("3, 0", [0, 3]), ("none", [])])
def test_the_holdout_can_be_chosen(text, held_out):
    assert choose_holdout(30, text) == held_out


@pytest.mark.parametrize(("text", "reason"), [
    ("0-29", "holds out all 30 slices; leave some"), ("30", "numbered 0 to 29"), ("29-25", "backwards"),
    ("last", "is no list of slices; write for instance 25-29"), ("", "no list")])
def test_a_holdout_that_cannot_be_is_refused(text, reason):
    with pytest.raises(UserError, match=reason):
        choose_holdout(30, text)


# ------------------------------------------------------------------------------------------------ download


def zipped(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


GOOD = {name: f"the bytes of {name} ".encode() * 50 for name in (VOLUME, LABELS, TEST)}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """This machine's own address is never asked through a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def serve():
    """Serve (status, content) answers one after the other, the last for ever, on this machine; gives the address."""
    servers = []

    def start(*answers):
        left = list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, content, *length = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                self.send_header("Content-Length", str(length[0] if length else len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                """Keep the test's output clean."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/isbi.zip", left

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("prefix", ["", "ISBI-2012-challenge/", "a/b c/"])
def test_the_three_stacks_are_taken_from_the_zip_and_nothing_else(serve, tmp_path, prefix):
    members = {prefix + name: data for name, data in GOOD.items()} | {prefix + "README.txt": b"hello",
                                                                      f"__MACOSX/{prefix}._{VOLUME}": b"mac"}
    url, _ = serve((200, zipped(members)))
    paths = download_isbi(tmp_path / "data", url)
    assert paths == [tmp_path / "data" / name for name in (VOLUME, LABELS, TEST)]
    assert contents(tmp_path / "data") == GOOD


def test_a_member_never_leaves_the_folder(serve, tmp_path):
    evil = {"../evil.tif": b"evil", "/tmp/evil-by-keras-unet.tif": b"evil", f"../../{VOLUME}": GOOD[VOLUME]}
    url, _ = serve((200, zipped({LABELS: GOOD[LABELS], TEST: GOOD[TEST]} | evil)))
    download_isbi(tmp_path / "a" / "data", url)
    assert contents(tmp_path / "a" / "data") == GOOD
    assert contents(tmp_path) == {"a": "folder"} and contents(tmp_path / "a") == {"data": "folder"}


def test_somebodys_own_stacks_are_never_replaced(serve, tmp_path):
    url, _ = serve((200, zipped(GOOD)))
    download_isbi(tmp_path, url)
    download_isbi(tmp_path, url)  # the same again is no harm
    (tmp_path / LABELS).write_bytes(b"drawn by hand")
    with pytest.raises(UserError, match=f"has another {LABELS} already, and nothing was replaced; move .* or name"):
        download_isbi(tmp_path, url)
    assert contents(tmp_path) == GOOD | {LABELS: b"drawn by hand"}


def test_a_busy_server_is_asked_again(serve, tmp_path):
    url, left = serve((503, b""), (503, b""), (200, zipped(GOOD)))
    download_isbi(tmp_path, url)
    assert contents(tmp_path) == GOOD and len(left) == 1


def damaged_in_the_last_member():
    content = bytearray(zipped(GOOD))
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        start = file.getinfo(TEST).header_offset + 30 + len(TEST)
    content[start + 5] ^= 0xFF
    return bytes(content)


def encrypted():
    content = zipped(GOOD)
    central = content.index(b"PK\x01\x02")
    return content[:6] + b"\x01" + content[7:central + 8] + b"\x01" + content[central + 9:]


@pytest.mark.parametrize(("answer", "reason"), [
    ((200, zipped({VOLUME: b"1", TEST: b"2"})), f"has no {LABELS}; it is not the challenge's"),
    ((200, b"<html>Not what you look for</html>"), "did not send a whole zip file"),
    ((200, b""), "did not send a whole zip file"),
    ((200, zipped(GOOD)[:-40]), "did not send a whole zip file"),
    ((200, damaged_in_the_last_member()), "did not send a whole zip file"),
    ((200, encrypted()), "did not send a whole zip file .*encrypted"),
    ((200, zipped(GOOD | {"big.bin": np.random.default_rng(0).bytes(300_000)})), "is larger than 0 MB"),
    ((200, zipped(GOOD | {TEST: bytes(300_000)})), "unpacks to more than the challenge's stacks"),
    ((200, zipped(GOOD), 10**5), "cannot be downloaded .*; check the connection"),  # the line breaks off
    ((404, b"no such file"), r"cannot be downloaded \(the server answers 404\); check the connection, or download"),
], ids=["member missing", "a web page", "nothing", "cut short", "damaged", "encrypted", "too large", "a zip bomb",
        "line breaks off", "404"])
@pytest.mark.parametrize("old", [True, False], ids=["over old files", "into a new folder"])
def test_a_download_that_fails_leaves_everything_as_it_was(serve, tmp_path, monkeypatch, answer, reason, old):
    monkeypatch.setattr(datasets, "ISBI_MAX_BYTES", 200_000)
    if old:
        (tmp_path / "data").mkdir()
        for name in (VOLUME, LABELS, TEST, "mine.txt"):
            (tmp_path / "data" / name).write_bytes(b"old")
    url, _ = serve(answer)
    with pytest.raises(UserError, match=reason) as error:
        download_isbi(tmp_path / "data", url)
    assert "\n" not in str(error.value)
    assert contents(tmp_path / "data") == (dict.fromkeys((VOLUME, LABELS, TEST, "mine.txt"), b"old") if old else {})


def test_a_server_that_is_not_there_is_one_line(script, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/isbi.zip"
    done = script("datasets.py", "isbi", "--data", tmp_path / "data", "--url", url)
    assert done.returncode == 2
    assert done.stderr.startswith(f"datasets.py: {url} cannot be downloaded (ConnectionError); check the connection")
    assert len(done.stderr.splitlines()) == 1 and contents(tmp_path / "data") == {}


# ------------------------------------------------------------------------------------------------ command line


def test_the_download_command_says_what_it_got(serve, script, tmp_path):
    url, _ = serve((200, zipped(GOOD)))
    done = script("datasets.py", "isbi", "--data", tmp_path / "data", "--url", url)
    assert done.returncode == 0 and f"{VOLUME}, {LABELS}, {TEST}" in done.stdout
    assert contents(tmp_path / "data") == GOOD


def test_checking_a_folder_that_is_not_there_is_one_line(script):
    done = script("datasets.py", "check", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("datasets.py: nowhere is no folder; 'python datasets.py isbi'")
    assert len(done.stderr.splitlines()) == 1
