"""Start the requested peers, and drive those that start."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from measure.core.child_process import ChildProcess
from measure.peers.drivers import Driven, running_driver
from measure.peers.environments import FOLDER, NotAvailable, installed
from measure.peers.peer_servers import PEERS, Peer, Work, running_peer
from measure.peers.systems import System
from measure.side_by_side.perf_analyzer import PerfAnalyzer, Target, drive
from measure.side_by_side.rounds import Cell

PERF_ANALYZER = "perf_analyzer"
NAMES = (*PEERS, PERF_ANALYZER)
_PERF_SIZES = (1, 4, 16, 64)
_TOLD = ("onnxruntime", "numpy", "grpcio", "protobuf", "tritonclient")


@dataclass(slots=True)
class Contenders:
    """The started peers; `skipped` gives the reasons of the others, by name."""

    systems: list[System] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)


def bring_up(
    stack: ExitStack,
    names: tuple[str, ...],
    work: Work,
    examples: NDArray[Any],
    report: Callable[[str], None],
) -> Contenders:
    """Install and start the named peers, one after the other; `stack` ends them."""
    found = Contenders()
    wanted = [PEERS[name] for name in names if name in PEERS]
    if not wanted:
        return found
    (FOLDER / "run").mkdir(parents=True, exist_ok=True)
    try:
        report("starting tritonclient")
        driver = stack.enter_context(running_driver(examples))
    except NotAvailable as error:
        found.skipped |= {peer.name: f"tritonclient: {error}" for peer in wanted}
        return found
    for peer in wanted:
        report(f"starting {peer.name}")
        try:
            _start(stack, driver, peer, work, found)
        except NotAvailable as error:
            found.skipped[peer.name] = str(error)
            report(f"{peer.name} is skipped: {error}")
    return found


def _start(
    stack: ExitStack, driver: ChildProcess, peer: Peer, work: Work, found: Contenders
) -> None:
    # On any failure, end the peer at once.
    with ExitStack() as own:
        address = own.enter_context(running_peer(peer, work))
        systems: list[System] = []
        for shared in (False, True)[: 1 + peer.shared_memory]:
            name = f"{peer.name}_shm" if shared else peer.name
            driven = Driven(driver, name, address, shared=shared)
            own.callback(driven.close)
            systems.append(driven)
        stack.push(own.pop_all())
    found.systems += systems
    found.addresses[peer.name] = address
    versions = installed(peer.name, peer.requirements).versions()
    packages = [text.partition("==")[0].partition("[")[0] for text in peer.requirements]
    found.versions[peer.name] = {
        package: versions[package] for package in (*packages, *_TOLD) if package in versions
    }


def load_with_perf_analyzer(
    service: str,
    found: Contenders,
    batch_sizes: tuple[int, ...],
    rounds: int,
    report: Callable[[str], None],
) -> list[Cell]:
    """Drive the service and, if it runs, Triton in turn; `skipped` gets the reason if not."""
    servers = {"service": service}
    if "triton" in found.addresses:
        servers["triton"] = found.addresses["triton"]
    targets = [
        Target(f"{name}_perf{'_shm' * shared}", address, shared)
        for shared in (False, True)
        for name, address in servers.items()
    ]
    cells = []
    try:
        report("installing perf_analyzer")
        program = PerfAnalyzer()
        for batch_size in sorted(set(_PERF_SIZES) & set(batch_sizes)):
            cells += drive(program, targets, batch_size, rounds, report)
    except NotAvailable as error:
        found.skipped[PERF_ANALYZER] = str(error)
        report(f"{PERF_ANALYZER} is skipped: {error}")
    return cells
