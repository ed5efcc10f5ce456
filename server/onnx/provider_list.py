"""List the execution providers, their devices and their options."""

from command_line import terminal
from command_line.onnx_runtime import ort
from command_line.table import Column, Table
from server.errors import StartError
from server.onnx import provider_library
from server.onnx.execution_provider import EXTRAS, OPTIONS, SHORT_NAMES, ExecutionProvider

_PROVIDERS = ("--ep", "ONNX Runtime's name", "from", "devices", "here")
_OPTIONS = ("option", "values", "default", "what it does")


def text() -> str:
    """A table of providers, then one of our options."""
    shown = terminal.results()
    with shown.capture() as captured:
        shown.print(providers())
        shown.print()
        shown.print(options())
        shown.print("Other options go to the provider itself, under its own names.")
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def providers() -> Table:
    """A row for each execution provider."""
    rows = []
    for name in dict.fromkeys([*SHORT_NAMES.values(), *provider_library.names()]):
        provider = ExecutionProvider(name)
        try:
            provider_library.require(provider)
            here = "yes"
        except StartError as error:
            here = "no" + str(error).partition("is not available")[2].partition(";")[0]
        devices = _devices(name) if here == "yes" else "-"
        rows.append((provider.short_name, name, _source(name), devices, here))
    return Table([Column(heading, words=True) for heading in _PROVIDERS], [rows])


def options() -> Table:
    """A row for each option."""
    rows = [
        (f"{ExecutionProvider(name).short_name}:{key}=", each.form, each.default or "-", each.help)
        for name, known in OPTIONS.items()
        for key, each in known.items()
    ]
    return Table([Column(heading, words=True) for heading in _OPTIONS], [rows])


def _source(name: str) -> str:
    if name in ort.get_available_providers():
        return f"onnxruntime {ort.__version__}"
    return provider_library.plugins().get(name) or f"extra [{EXTRAS[name]}]"


def _devices(name: str) -> str:
    shown = []
    for device in provider_library.devices(name):
        kind = device.ep_metadata.get("ov_device") or device.device.type.name
        shown.append(f"{kind} ({device.device.vendor})")
    return ", ".join(shown) or "-"
