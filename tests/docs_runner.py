"""Run the code blocks of one page in order, as somebody who follows it would."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import docs_substitutions
from docs_blocks import Block, commands
from docs_environment import newcomers_variables

COMMAND_S = 300
SERVER_S = 120
PAUSE_S = 0.02

ENTER = "source .venv/bin/activate"
"""What README.md says about getting into the environment; the other pages take it as done."""

_SERVER = re.compile(r"^(python -m server|argmax-server|python -m bench\.serve_peer)\b")
_ANSWERS_AND_ENDS = re.compile(r"--(help|list-ep)\b")
_LISTENING = "listening on "
_SAVE_STATE = 'code=$?; export -p > "$STATE"; echo "cd $(printf %q "$PWD")" >> "$STATE"; exit $code'


class BlockFailed(AssertionError):
    """A block that does not do what it should; the text has its place, the command and output."""


class Page:
    """A terminal in a fresh checkout. Each page has its own, and a port of its own.

    Exported variables and the working directory go from command to command, files from block to
    block. A server runs until the page starts another one, or ends; it must end with 0 then.
    """

    def __init__(
        self,
        checkout: Path,
        *,
        entered: bool,
        substituted: Callable[[str, int], str] = docs_substitutions.substituted,
    ) -> None:
        """Take a checkout; `entered`: the terminal is in its environment already."""
        self._checkout = checkout
        self._state = checkout / ".terminal"
        self._state.write_text(f"cd {checkout}\n{ENTER if entered else ''}\n")
        self._port = _free_port()
        address = {docs_substitutions.DEFAULT_ADDRESS: f"127.0.0.1:{self._port}"}
        self._variables = newcomers_variables() | address | {"STATE": str(self._state)}
        self._substituted = substituted
        self._server: tuple[Block, str, subprocess.Popen[bytes], Path] | None = None
        self._logs = 0

    def __enter__(self) -> Self:
        """Return the page."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Stop the server. How that ends counts only if nothing else failed."""
        self._stop_server(judge=kind is None)

    def run(self, block: Block) -> None:
        """Run one block. Raises BlockFailed with the command that failed and what it wrote."""
        try:
            source = self._substituted(block.source, self._port)
        except docs_substitutions.LeavesTheMachine as error:
            raise BlockFailed(f"{block.where}: {error}") from None
        if block.language == "python":
            # Not in the log's folder: a script's own folder comes first where it imports from.
            script = self._checkout / f"block_{block.line}.py"
            script.write_text(source)
            self._run(block, f"python {script.name}")
            return
        for command in commands(source):
            if _SERVER.match(command) and not _ANSWERS_AND_ENDS.search(command):
                self._start_server(block, command)
            else:
                self._run(block, command)

    def _run(self, block: Block, command: str) -> None:
        log = self._log()
        process = self._bash(command, log)
        try:
            code = process.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            raise _failure(block, command, f"got no end within {COMMAND_S} s", log) from None
        finally:
            _kill(process)
        allowed = docs_substitutions.allowed_codes(command)
        if code not in allowed:
            raise _failure(block, command, f"got exit code {code}, expected {allowed}", log)
        if code and "Traceback (most recent call last)" in log.read_text(errors="replace"):
            raise _failure(block, command, "it raised", log)

    def _start_server(self, block: Block, command: str) -> None:
        self._stop_server(judge=True)
        log = self._log()
        process = self._bash(f"exec {command}", log)
        self._server = block, command, process, log
        end = time.monotonic() + SERVER_S
        while _LISTENING not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > end:
                _kill(process)
                self._server = None
                raise _failure(block, command, "the server does not listen", log)
            time.sleep(PAUSE_S)

    def _stop_server(self, *, judge: bool) -> None:
        if self._server is None:
            return
        block, command, process, log = self._server
        self._server = None
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(SERVER_S)
        except subprocess.TimeoutExpired:
            _kill(process)
            code = process.wait()
        if judge and code != 0:
            raise _failure(block, command, f"got exit code {code} at Ctrl-C, expected 0", log)

    def _bash(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        script = f'source "$STATE"\n{command}\n{_SAVE_STATE}\n'
        with log.open("wb") as output:
            return subprocess.Popen(
                ["bash", "--norc", "-e", "-o", "pipefail", "-c", script],
                cwd=self._checkout,
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _log(self) -> Path:
        self._logs += 1
        return self._checkout / f".terminal-{self._logs}.log"


def _failure(block: Block, command: str, why: str, log: Path) -> BlockFailed:
    said = log.read_text(errors="replace")[-4000:]
    return BlockFailed(f"{block.where}: {why}\n$ {command}\n{said}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
