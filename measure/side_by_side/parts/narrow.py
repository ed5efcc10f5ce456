"""Compare streams of the same examples with wire dtypes float32, float16 and int8."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from client.errors import RequestFailed
from measure.core import local_server
from measure.core.verification import Truth
from measure.peers.peer_servers import MODEL
from measure.peers.systems import InProcess
from measure.side_by_side.rounds import Cell, measure
from measure.side_by_side.service import Settings, connected, serving
from measure.sweep.modes import Stream
from protos.quantize import to_wire

WIRES = ("float16", "int8")


@dataclass(frozen=True, slots=True)
class Narrow:
    """Cells of the streams: `stream`, and `stream_WIRE`, whose float32 rows the client narrows.

    `stream_WIRE_ready` gets rows that are already narrow.
    """

    cells: list[Cell]

    def cell(self, system: str) -> Cell:
        """The cell of a system."""
        (found,) = (cell for cell in self.cells if cell.system == system)
        return found

    def agreement(self, system: str) -> float:
        """Share of labels equal to the float64 reference's for the float32 rows."""
        cell = self.cell(system)
        return 1 - cell.disagreements / max(cell.labels, 1)


def compare_wires(settings: Settings, truth: Truth, report: Callable[[str], None]) -> Narrow:
    """Measure all in turn at the largest batch size, on one server.

    UsageError or RequestFailed if the models cannot be exported or served.
    """
    folder = settings.out / "models-wire"
    report("exporting the models that take float16 and int8")
    local_server.export(settings.experiment, MODEL, folder)
    for wire in WIRES:
        narrow = replace(settings.experiment, wire=wire)
        local_server.export(narrow, f"{MODEL}_{wire}", folder)
    with ExitStack() as stack:
        server = stack.enter_context(serving(folder, settings))

        def stream(name: str, model: str, wire: str | None = None) -> InProcess:
            client = stack.enter_context(connected(server.address, model))
            x = truth.x if wire is None else to_wire(truth.x, wire, client.input().scale)
            mode = Stream(client)
            stack.callback(mode.close)
            return InProcess(name, "service", mode, x)

        systems = [stream("stream", MODEL)]
        for wire in WIRES:
            systems.append(stream(f"stream_{wire}", f"{MODEL}_{wire}"))
            systems.append(stream(f"stream_{wire}_ready", f"{MODEL}_{wire}", wire))
        cells = measure(systems, max(settings.batch_sizes), settings.rounds, truth, report)
    failed = [cell for cell in cells if cell.error]
    if failed:
        raise RequestFailed("UNKNOWN", f"{failed[0].system}: {failed[0].error}")
    return Narrow(cells)
