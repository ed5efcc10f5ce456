"""Decide which requests are traced: settings of all models and of single ones, as Triton has them.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_trace.md
"""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from server.errors import InvalidInput

LEVEL, RATE, COUNT = "trace_level", "trace_rate", "trace_count"
OFF, TIMESTAMPS = "OFF", "TIMESTAMPS"
MODE = "trace_mode"
UNLIMITED = -1
_MOST = 2**31 - 1
# Spans go to a collector, in batches.
_FIXED = {"log_frequency": "0", "trace_file": "", MODE: "opentelemetry"}


class _Rate:
    """One of `every` requests; 0: none."""

    def __init__(self, every: int) -> None:
        self.every = every
        self._seen = itertools.count(1)

    def next(self) -> bool:
        """Whether the next request is one of those; any thread."""
        return self.every > 0 and next(self._seen) % self.every == 0


class _Count:
    """How many more requests are traced."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._lock = threading.Lock()

    def next(self) -> bool:
        """Whether one more is; any thread."""
        if self.left == UNLIMITED:
            return True
        with self._lock:
            if self.left == 0:
                return False
            self.left -= 1
            return True


@dataclass(frozen=True, slots=True)
class _Scope:
    """Settings of all models, or what one model has instead: None where it has nothing."""

    level: str | None = None
    rate: _Rate | None = None
    count: _Count | None = None


@dataclass(frozen=True, slots=True)
class _InForce:
    level: str
    rate: _Rate
    count: _Count


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting that can be changed: its field, and how its text is read."""

    field: str
    read: Callable[[str], Any]
    shown: Callable[[_InForce], str]


def _level(text: str) -> str:
    if text not in (OFF, TIMESTAMPS):
        raise ValueError(f"{OFF} or {TIMESTAMPS}")
    return text


def _integer(text: str, least: int) -> int:
    plain = text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20
    if not (plain and least <= int(text) <= _MOST):
        raise ValueError(f"an integer from {least} to {_MOST}")
    return int(text)


_SETTINGS = {
    LEVEL: _Setting("level", _level, lambda settings: settings.level),
    RATE: _Setting(
        "rate",
        lambda text: _Rate(_integer(text, 0)),
        lambda settings: str(settings.rate.every),
    ),
    COUNT: _Setting(
        "count",
        lambda text: _Count(_integer(text, UNLIMITED)),
        lambda settings: str(settings.count.left),
    ),
}


class TraceSettings:
    """The settings in force; any thread."""

    def __init__(self, rate: int) -> None:
        """Trace one of `rate` requests at the start, with 0 only calls that ask for it."""
        self._at_start = {LEVEL: TIMESTAMPS, RATE: str(rate), COUNT: str(UNLIMITED)}
        self._lock = threading.Lock()
        self._all = _InForce(TIMESTAMPS, _Rate(rate), _Count(UNLIMITED))
        self._models: dict[str, _Scope] = {}

    def sample(self, model: str, *, asked: bool | None) -> bool:
        """Whether to trace a request of a model.

        `asked` is what its client wants, None if it does not say: one that wants its trace gets it
        at any rate.
        """
        settings = self._in_force(model)
        if settings.level == OFF or asked is False:
            return False
        return (asked or settings.rate.next()) and settings.count.next()

    def change(self, model: str, changes: Mapping[str, Sequence[str]]) -> None:
        """Change settings of a model, or with "" those of all models that have none of their own.

        No values: what was there at the start, or for a model what all have. Raises InvalidInput,
        and then nothing is changed.
        """
        new: dict[str, Any] = {}
        for name, values in changes.items():
            setting = _SETTINGS.get(name)
            if setting is None:
                _check_fixed(name, values)
            elif values or not model:
                text = values or (self._at_start[name],)
                new[setting.field] = _read(name, text, setting.read)
            else:
                new[setting.field] = None
        with self._lock:
            if not model:
                self._all = replace(self._all, **new)
                return
            scope = replace(self._models.get(model, _Scope()), **new)
            # Replaced as a whole: other threads read it meanwhile.
            others = {name: each for name, each in self._models.items() if name != model}
            self._models = others if scope == _Scope() else {**others, model: scope}

    def described(self, model: str) -> dict[str, str]:
        """Every setting in force for a model, or with "" for all."""
        settings = self._in_force(model)
        return {name: each.shown(settings) for name, each in _SETTINGS.items()} | _FIXED

    def _in_force(self, model: str) -> _InForce:
        every, scope = self._all, self._models.get(model)
        if scope is None:
            return every
        return _InForce(
            scope.level or every.level, scope.rate or every.rate, scope.count or every.count
        )


def _read(name: str, values: Sequence[str], read: Callable[[str], Any]) -> Any:
    if len(values) != 1:
        raise InvalidInput(f"trace setting {name!r}: got {len(values)} values, expected one")
    try:
        return read(values[0])
    except ValueError as error:
        raise InvalidInput(f"trace setting {name!r}: got {values[0]!r}, expected {error}") from None


def _check_fixed(name: str, values: Sequence[str]) -> None:
    if name not in _FIXED:
        expected = ", ".join((*_SETTINGS, *_FIXED))
        raise InvalidInput(f"got trace setting {name!r}, expected one of {expected}")
    # Clients send back what they have read.
    if list(values) not in ([], [_FIXED[name]]):
        raise InvalidInput(
            f"trace setting {name!r}: got {list(values)}, expected {_FIXED[name]!r}: spans go to a "
            "collector, not to a file"
        )
