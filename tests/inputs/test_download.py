"""A download gives all three stacks or leaves the folder as it was, and never replaces another file."""

import http.server
import io
import socket
import threading
import zipfile

import numpy as np
import pytest

from unet.inputs import download
from unet.inputs.download import download_isbi
from unet.inputs.stacks import LABELS, TEST, VOLUME
from utils import UserError


def contents(folder):
    """Name and bytes of all that lies in a folder, hidden files too."""
    return {path.name: path.read_bytes() if path.is_file() else "folder" for path in folder.iterdir()}


def zipped(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


GOOD = {name: f"the bytes of {name} ".encode() * 50 for name in (VOLUME, LABELS, TEST)}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """This machine's own address is never asked through a proxy, and asked again without a pause."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0)


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
    ((200, b"<html>Not what you look for</html>"), "did not send a complete zip file"),
    ((200, b""), "did not send a complete zip file"),
    ((200, zipped(GOOD)[:-40]), "did not send a complete zip file"),
    ((200, damaged_in_the_last_member()), "did not send a complete zip file"),
    ((200, encrypted()), "did not send a complete zip file .*encrypted"),
    ((200, zipped(GOOD | {"big.bin": np.random.default_rng(0).bytes(300_000)})), "is larger than 0 MB"),
    ((200, zipped(GOOD | {TEST: bytes(300_000)})), "unpacks to more than the challenge's stacks"),
    ((200, zipped(GOOD), 10**5), "cannot be downloaded .*; check the connection"),  # the line breaks off
    ((404, b"no such file"), r"cannot be downloaded \(the server answers 404\); check the connection, or download"),
], ids=["member missing", "a web page", "nothing", "cut short", "damaged", "encrypted", "too large", "a zip bomb",
        "line breaks off", "404"])
@pytest.mark.parametrize("old", [True, False], ids=["over old files", "into a new folder"])
def test_a_download_that_fails_leaves_everything_as_it_was(serve, tmp_path, monkeypatch, answer, reason, old):
    monkeypatch.setattr(download, "ISBI_MAX_BYTES", 200_000)
    if old:
        (tmp_path / "data").mkdir()
        for name in (VOLUME, LABELS, TEST, "mine.txt"):
            (tmp_path / "data" / name).write_bytes(b"old")
    url, _ = serve(answer)
    with pytest.raises(UserError, match=reason) as error:
        download_isbi(tmp_path / "data", url)
    assert "\n" not in str(error.value)
    assert contents(tmp_path / "data") == (dict.fromkeys((VOLUME, LABELS, TEST, "mine.txt"), b"old") if old else {})


def test_a_server_that_is_not_there_is_one_line(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/isbi.zip"
    with pytest.raises(UserError, match=r"cannot be downloaded \(ConnectionError\); check the connection"):
        download_isbi(tmp_path / "data", url)
    assert contents(tmp_path / "data") == {}
