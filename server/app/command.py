"""The server's command: options in, exit code out."""

from collections.abc import Mapping, Sequence
from typing import Any

from command_line import extras
from command_line.parser import REFUSED, asks_for_help
from server.app import arguments
from server.app.process import streams
from server.app.process.stop_signals import StopSignals

# Where systemd, or another supervisor, wants to be notified of readiness.
_NOTIFY_SOCKET = "NOTIFY_SOCKET"


def run(
    program: str, argv: Sequence[str], environment: Mapping[str, str], stop: StopSignals
) -> int:
    """Serve until a signal, then drain. 0: done; 2: could not start."""
    try:
        # --help works even where the server cannot run.
        if not asks_for_help(argv):
            _serving()
        settings = arguments.parse(argv, environment, _list_ep)
        serving = _serving()
    except extras.MissingExtra as error:
        streams.complain(f"{program}: error: {error}")
        return REFUSED
    warnings = arguments.unknown_variables(environment)
    code: int = serving.serve(settings, warnings, stop, environment.get(_NOTIFY_SOCKET))
    return code


def _serving() -> Any:
    return extras.imported("server.app.serving", "server", "serving")


def _list_ep() -> str:
    text: str = extras.imported("server.onnx.provider_list", "server", "--list-ep").text()
    return text
