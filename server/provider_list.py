"""Tell which execution providers there are, on what devices, and which options they take."""

import onnxruntime as ort
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server import provider_library
from server.errors import StartError
from server.execution_provider import EXTRAS, OPTIONS, SHORT_NAMES, ExecutionProvider

_WIDTH = 200


def text() -> str:
    """A table of providers, then one of the options that are ours."""
    console = Console(width=_WIDTH, no_color=True)
    with console.capture() as captured:
        console.print(_providers())
        console.print(_options())
        console.print("Other options go to the provider itself, under its own names.")
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _providers() -> Table:
    table = Table(
        "--ep", "ONNX Runtime's name", "from", "devices", "here", box=None, pad_edge=False
    )
    for name in dict.fromkeys([*SHORT_NAMES.values(), *provider_library.names()]):
        provider = ExecutionProvider(name)
        try:
            provider_library.require(provider)
            here = "yes"
        except StartError as error:
            here = "no" + str(error).partition("is not here")[2].partition(";")[0]
        devices = _devices(name) if here == "yes" else "-"
        cells = (provider.short_name, name, _source(name), devices, here)
        table.add_row(*map(escape, cells))
    return table


def _options() -> Table:
    table = Table("\noption", "\nvalues", "\ndefault", "\nwhat it does", box=None, pad_edge=False)
    for name, options in OPTIONS.items():
        for key, option in options.items():
            shown = f"{ExecutionProvider(name).short_name}:{key}="
            table.add_row(shown, option.wanted, option.default or "-", option.help)
    return table


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
