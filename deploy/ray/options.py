"""Options of the servers that Ray places, as `python -m server` takes them."""

import contextlib
import io
from collections.abc import Mapping, Sequence

from server.app import arguments
from server.app.config import Config
from server.repository.repository import EXPLICIT

_ADDRESS = "--address"
_THREADS = "ARGMAX_SERVER_THREADS"


class OptionsRefused(ValueError):
    """Options that a replica cannot have; one line."""


def config(words: Sequence[str], environment: Mapping[str, str], host: str, cores: float) -> Config:
    """The configuration of a server that listens at any free port of `host`.

    Without another setting each model has a thread for each of its `cores`. OptionsRefused says
    which option is at fault.
    """
    if any(word.partition("=")[0] == _ADDRESS for word in words):
        raise OptionsRefused(f"options: got {_ADDRESS}, expected none: each replica has its own")
    end = f"[{host}]:0" if ":" in host else f"{host}:0"
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            parsed = arguments.parse(
                [*words, _ADDRESS, end], {_THREADS: str(max(1, int(cores))), **environment}
            )
        except SystemExit:
            *_, line = said.getvalue().splitlines() or [""]
            raise OptionsRefused(f"options: {line.partition('error: ')[2] or line}") from None
    if parsed.model_control == EXPLICIT:
        raise OptionsRefused(
            "options: got --model-control explicit, expected none or poll: a request to load a "
            "model would reach one replica of several"
        )
    return parsed
