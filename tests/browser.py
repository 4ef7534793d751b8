"""Headless Chromium, driven over its DevTools pipe: real clicks, wheel and keys, and the errors that a page reports."""

import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KEYS = {"PageDown": 34, "ArrowDown": 40, "Enter": 13, "Tab": 9, "ArrowRight": 39, "+": 187, "0": 48}
COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


class Browser:
    """A page in a browser; `complaints` are script errors and everything that was written to its console."""

    def __init__(self, profile, width=1280, height=1000):
        ours_out, theirs_in = os.pipe()  # read end, write end
        theirs_out, ours_in = os.pipe()

        def connect():  # Chromium reads commands from descriptor 3 and writes answers to 4
            for descriptor, end in ((13, theirs_out), (14, theirs_in)):
                os.dup2(end, descriptor)
            os.dup2(13, 3)
            os.dup2(14, 4)

        self.process = subprocess.Popen(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "about:blank",
             f"--user-data-dir={profile}", f"--window-size={width},{height}"], preexec_fn=connect, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.pipe, self.answers = ours_in, os.fdopen(ours_out, "rb")
        self.number, self.session, self.complaints, self.unread = 0, None, [], b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.pipe)
        self.answers.close()

    def call(self, method, **parameters):
        """Call a method of the protocol and return its result."""
        self.number += 1
        session = {"sessionId": self.session} if self.session else {}
        message = {"id": self.number, "method": method, "params": parameters, **session}
        os.write(self.pipe, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self):
        """Read the next answer or event; keep complaints."""
        while b"\0" not in self.unread:
            data = self.answers.read1(1 << 16)
            assert data, "the browser has ended"
            self.unread += data
        text, _, self.unread = self.unread.partition(b"\0")
        answer = json.loads(text)
        if answer.get("method") in COMPLAINTS:
            self.complaints.append(answer["params"])
        return answer

    def open(self, path):
        """Open a file and wait until it is loaded."""
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, script):
        """Return the value of an expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition, seconds=120):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < end, f"not in {seconds} s: {condition}"
            time.sleep(0.05)

    def middle(self, selector):
        """Scroll the first element that matches into view and return its middle: x, y in pixels."""
        return self.run(f"(() => {{const one = document.querySelector({selector!r}); "
                        "one.scrollIntoView({block: 'center'}); const box = one.getBoundingClientRect(); "
                        "return [box.x + box.width / 2, box.y + box.height / 2]})()")

    def mouse(self, kind, x, y, **parameters):
        """Move the mouse ('mouseMoved'), press or release its button, or turn its wheel at a place."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **parameters)

    def click(self, selector, dx=0, dy=0):
        """Click an element, `dx` and `dy` pixels from its middle."""
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x + dx, y + dy, button="left", clickCount=1)

    def key(self, name):
        """Press a key."""
        text = {"text": name} if len(name) == 1 else {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=KEYS[name],
                      **(text if kind == "keyDown" else {}))
