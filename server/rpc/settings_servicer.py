"""Answer the RPCs that read and change settings while the server runs."""

import logging
import threading
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from protos import inference_pb2 as pb
from server.errors import FeatureUnavailable, InvalidInput
from server.repository.repository import Repository

_log = logging.getLogger(__name__)

# What Triton tells while it traces nothing.
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
    """Which severities the log writes, and a way to change that."""

    def written(self) -> frozenset[int]:
        """Severities that are written."""

    def write_only(self, severities: AbstractSet[int]) -> None:
        """Write these severities from now on, and no others."""


class SettingsServicer:
    """One method per RPC; nothing is traced here, and of the log its severities can be changed."""

    def __init__(self, repository: Repository, severities: Severities) -> None:
        self._repository = repository
        self._severities = severities
        self._lock = threading.Lock()

    def TraceSetting(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """Tell that nothing is traced, of one model or of all; changing that is refused."""
        if request.model_name:
            self._repository.get(request.model_name)
        if request.settings:
            raise FeatureUnavailable(f"{sorted(request.settings)} came; this server has no tracing")
        response = pb.TraceSettingResponse()
        for name, value in _TRACING_OFF.items():
            response.settings[name].value.append(value)
        return response

    def LogSettings(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        """Change settings of the log, all or none of them; then tell those in force."""
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
        raise InvalidInput(f"log setting {name!r} came; there are {sorted(_CHOICES)}")
    kind = value.WhichOneof("parameter_choice")
    came = None if kind is None else getattr(value, kind)
    for choice in choices:
        # True equals 1, yet is no level.
        if (type(came), came) == (type(choice), choice):
            return choice
    wanted = " or ".join(map(repr, choices))
    raise InvalidInput(f"log setting {name!r} is {came!r}; it can be {wanted}")


def _write(target: pb.LogSettingsResponse.SettingValue, value: LogValue) -> None:
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int):
        target.uint32_param = value
    else:
        target.string_param = value
