"""Answer the RPCs that read and change settings while the server runs."""

import logging
import threading
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from protos import inference_pb2 as pb
from server.errors import FeatureUnavailable, InvalidInput
from server.repository.repository import Repository
from server.rpc.tracing.trace_settings import TraceSettings

_log = logging.getLogger(__name__)

# Triton's answer while tracing is off.
_TRACING_OFF = {
    "trace_level": "OFF",
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
}
_SEVERITIES = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
_VERBOSE = "log_verbose_level"

LogValue = bool | int | str

# Lines go to stderr, each a JSON object; neither can be changed.
_FIXED: Mapping[str, LogValue] = {"log_file": "", "log_format": "JSON"}
_CHOICES: Mapping[str, tuple[LogValue, ...]] = {
    **{name: (value,) for name, value in _FIXED.items()},
    **dict.fromkeys(_SEVERITIES, (False, True)),
    _VERBOSE: (0, 1),
}


class Severities(Protocol):
    """The log's severities, and a way to change them."""

    def written(self) -> frozenset[int]:
        """Severities that are logged."""

    def write_only(self, severities: AbstractSet[int]) -> None:
        """Log only these severities from now on."""


class SettingsServicer:
    """One method per RPC; of the log only the severities can be changed."""

    def __init__(
        self, repository: Repository, severities: Severities, traces: TraceSettings | None
    ) -> None:
        """`traces`: None where requests cannot be traced."""
        self._repository = repository
        self._severities = severities
        self._traces = traces
        self._lock = threading.Lock()

    def TraceSetting(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """Report, and change, which requests are traced, of one model or all."""
        name = request.model_name
        if name:
            self._repository.get(name)
        settings: Mapping[str, str] = _TRACING_OFF
        if self._traces is not None:
            if request.settings:
                changes = {key: each.value for key, each in request.settings.items()}
                self._traces.change(name, changes)
            settings = self._traces.described(name)
            if request.settings:
                _log.info("trace settings changed", extra={"model": name, "settings": settings})
        elif request.settings:
            raise FeatureUnavailable(
                f"got trace settings {sorted(request.settings)}; this server has no tracing: it "
                "was started without --trace-otlp"
            )
        response = pb.TraceSettingResponse()
        for key, value in settings.items():
            response.settings[key].value.append(value)
        return response

    def LogSettings(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        """Change settings of the log, all or none of them; return the current ones."""
        with self._lock:
            settings = _log_settings(self._severities.written())
            changed = {name: _checked(name, value) for name, value in request.settings.items()}
            if changed:
                settings |= changed
                _log.info("log settings changed", extra={"settings": changed})
                self._severities.write_only(_severities(settings))
        response = pb.LogSettingsResponse()
        for name, value in settings.items():
            _write(response.settings[name], value)
        return response


def _log_settings(written: frozenset[int]) -> dict[str, LogValue]:
    switches = {name: severity in written for name, severity in _SEVERITIES.items()}
    return {**_FIXED, **switches, _VERBOSE: int(logging.DEBUG in written)}


def _severities(settings: Mapping[str, LogValue]) -> frozenset[int]:
    written = {severity for name, severity in _SEVERITIES.items() if settings[name]}
    return frozenset(written | ({logging.DEBUG} if settings[_VERBOSE] else set()))


def _checked(name: str, value: pb.LogSettingsRequest.SettingValue) -> LogValue:
    choices = _CHOICES.get(name)
    if choices is None:
        raise InvalidInput(f"got log setting {name!r}, expected one of {sorted(_CHOICES)}")
    kind = value.WhichOneof("parameter_choice")
    setting = None if kind is None else getattr(value, kind)
    for choice in choices:
        # True equals 1, but is not a level.
        if (type(setting), setting) == (type(choice), choice):
            return choice
    expected = " or ".join(map(repr, choices))
    raise InvalidInput(f"log setting {name!r} is {setting!r}, expected {expected}")


def _write(target: pb.LogSettingsResponse.SettingValue, value: LogValue) -> None:
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int):
        target.uint32_param = value
    else:
        target.string_param = value
