"""Drive a headless Chromium over its debugging pipe."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 60

# Chromium reads commands from file 3 and writes answers to file 4.
_TO_3_AND_4 = """
import fcntl, os, sys
high = [fcntl.fcntl(int(text), fcntl.F_DUPFD, 10) for text in sys.argv[1:3]]
for number, file in zip((3, 4), high):
    os.dup2(file, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


def program():
    """Return the path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def running():
    """Start a browser with a profile of its own; yields a tab."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with tempfile.TemporaryDirectory(
        # Its helpers may write for a moment longer than it lives.
        prefix="chromium-",
        ignore_cleanup_errors=True,
    ) as profile:
        command = [program(), "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += ["--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"]
        command += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        process = subprocess.Popen(
            [sys.executable, "-c", _TO_3_AND_4, str(to_read), str(from_write), *command],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        with os.fdopen(to_write, "wb", 0) as writer, os.fdopen(from_read, "rb") as reader:
            try:
                yield Tab(writer, reader)
            finally:
                process.kill()
                process.wait(PATIENCE_S)


class Tab:
    """One page, and what it said: `errors` of its scripts, `requests` it made."""

    def __init__(self, writer, reader):
        self._writer, self._reader = writer, reader
        self._number, self._session = 0, None
        self.errors, self.requests, self._events = [], [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Call a method of the protocol; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def emulate(self, width, *, dark=False, touch=False):
        """Show what follows, and what is there, at a width in pixels and in a scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=844,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])

    def open(self, path):
        """Load a file."""
        self.errors.clear()
        self.requests.clear()
        self._events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._next()
        # Two frames later, what scripts drew at the load has its place.
        self.evaluate("new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))")

    def evaluate(self, expression):
        """Return the value of an expression, awaited."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def pdf(self):
        """PDF of the page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def _next(self):
        data = bytearray()
        while (byte := self._reader.read(1)) != b"\0":
            assert byte, "the browser is gone"
            data += byte
        message = json.loads(data)
        method, told = message.get("method"), message.get("params", {})
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.errors.append(told["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.errors.append(told["args"])
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        return message
