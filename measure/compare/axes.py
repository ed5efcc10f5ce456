"""Values of server options, to compare servers with different ones."""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from server.app.config import Config
from server.app.options.of_sessions import SessionOptions
from server.onnx.session_settings import SessionSettings

FORM = "NAME=VALUE[,VALUE...]"
THREADS, INSTANCES = "threads", "instances"
_OF_SESSIONS = {option.name for option in fields(SessionOptions)}
_OPTIONS = {
    option.name.replace("_", "-"): option
    for option in fields(Config)
    if option.name in {*_OF_SESSIONS, THREADS}
}
NAMES = tuple(sorted(_OPTIONS))


@dataclass(frozen=True, slots=True)
class Value:
    """An option of the server, by its name without dashes, with its value as text."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}={self.text}"

    @property
    def flags(self) -> tuple[str, str]:
        """The words of the server's command line."""
        return f"--{self.name}", self.text

    @property
    def meaning(self) -> Any:
        """The value that the server reads from the text; ValueError has the expected form."""
        return _OPTIONS[self.name].metadata["parse"](self.text)

    @property
    def is_default(self) -> bool:
        """Whether a server without the option has this value."""
        option = _OPTIONS[self.name]
        made = option.default_factory() if callable(option.default_factory) else option.default
        return bool(self.meaning == made)


@dataclass(frozen=True, slots=True)
class Contestant:
    """What is compared: an execution provider, as `--ep` names it, with options of the server."""

    ep: str
    values: tuple[Value, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.ep, *map(str, self.values)))

    @property
    def flags(self) -> list[str]:
        """The server's options, without `--ep`."""
        return [word for value in self.values for word in value.flags]

    @property
    def session(self) -> SessionSettings:
        """The settings of a session in this process."""
        chosen = {
            _OPTIONS[value.name].name: value.meaning
            for value in self.values
            if value.name != THREADS
        }
        return SessionOptions(**chosen).session

    def threads(self, default: int) -> int:
        """Threads of an execution in this process."""
        return next((value.meaning for value in self.values if value.name == THREADS), default)


def axis(text: str) -> tuple[Value, ...]:
    """Read NAME=VALUE,...; ArgumentTypeError for an unknown option, or a value that it rejects."""
    name, _, rest = text.partition("=")
    if name not in _OPTIONS or not rest:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected {FORM}, with one of the names {', '.join(NAMES)}"
        )
    values = tuple(Value(name, part) for part in dict.fromkeys(rest.split(",")))
    for value in values:
        try:
            _ = value.meaning
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"got {value.text!r} for {name}, expected {error}"
            ) from None
    return values


def combinations(axes: Sequence[Sequence[Value]]) -> list[tuple[Value, ...]]:
    """Each value of each axis with each of the others; one without values where there are none."""
    return list(itertools.product(*axes))
