"""Exchange lines of JSON with a process of this project over its stdin and stdout.

A line with `failed` reports an error: its text, and `code` if the server returned it.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any

from client.errors import ClientError, RequestFailed, UsageError
from measure.core.processes import child, last_words

# Time for the process to release what it holds, such as shared memory.
_STOP_TIMEOUT_S = 10.0


class ChildProcess:
    """The parent's end: send a line, receive a line; errors call the process `name`."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: IO[bytes], name: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._log = log
        self._name = name

    def send(self, content: Any) -> None:
        """Send a line. Does nothing if the process has ended: `receive` raises the reason."""
        with contextlib.suppress(OSError):
            self._stdin.write(json.dumps(content).encode() + b"\n")
            self._stdin.flush()

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the next line.

        Raises RequestFailed and UsageError that the process reports, and UsageError with its last
        line of output if it has ended. A process that is silent for `timeout_s` is killed.
        """
        timer = None if timeout_s is None else threading.Timer(timeout_s, self._process.kill)
        if timer is not None:
            timer.start()
        try:
            line = self._stdout.readline()
        finally:
            if timer is not None:
                timer.cancel()
        if not line:
            raise UsageError(f"{self._name} ended: {last_words(self._log)}")
        content: dict[str, Any] = json.loads(line)
        if "code" in content:
            raise RequestFailed(content["code"], content["failed"])
        if "failed" in content:
            raise UsageError(content["failed"])
        return content

    def ask(self, content: Any, timeout_s: float | None = None) -> dict[str, Any]:
        """Send a line and receive one, as `receive` does."""
        self.send(content)
        return self.receive(timeout_s)

    def finish(self) -> None:
        """Close its stdin: no more lines follow."""
        with contextlib.suppress(OSError):
            self._stdin.close()


@contextlib.contextmanager
def talking_to(command: Sequence[str], name: str) -> Iterator[ChildProcess]:
    """Run `command` while the block lasts; then close its stdin, and kill it if it does not end."""
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as log,
        child(command, stdin=pipe, stdout=pipe, stderr=log) as process,
    ):
        talk = ChildProcess(process, log, name)
        try:
            yield talk
        finally:
            talk.finish()
            # The process may block on output that is no longer read.
            talk._stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)


class Parent:
    """The child's end: iterates over the parent's lines until the parent closes stdin or dies."""

    def __init__(self) -> None:
        # Output that a library prints must not mix with the lines.
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def __iter__(self) -> Iterator[Any]:
        return (json.loads(line) for line in sys.stdin)

    def end_with_it(self) -> None:
        """End this process at once when the parent closes stdin or dies."""

        def watch() -> None:
            for _ in self:
                pass
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()

    def say(self, **content: Any) -> None:
        """Send a line."""
        self._answers.write(json.dumps(content) + "\n")
        self._answers.flush()

    def fail(self, error: Exception) -> None:
        """Report an error."""
        if isinstance(error, RequestFailed):
            self.say(failed=error.text, code=error.code)
        else:
            self.say(failed=str(error) if isinstance(error, ClientError) else repr(error))
