"""Command line of the server: `python -m server --models DIR`."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from command_line import extras
from command_line.guard import complain
from command_line.parser import REFUSED, asks_for_help
from server.app import config

PROGRAM = "argmax-server"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain. 0: done; 2: could not start."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        # --help works even where the server cannot run.
        if not asks_for_help(given):
            _serving()
        settings = config.parse(given, os.environ, _list_ep)
        serving = _serving()
    except extras.MissingExtra as error:
        complain(PROGRAM, f"error: {error}")
        return REFUSED
    code: int = serving.serve(settings, config.unknown_variables(os.environ))
    return code


def _serving() -> Any:
    return extras.imported("server.app.serving", "server", "serving")


def _list_ep() -> str:
    text: str = extras.imported("server.onnx.provider_list", "server", "--list-ep").text()
    return text


if __name__ == "__main__":
    sys.exit(main())
