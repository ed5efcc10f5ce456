"""Load the engines of a model whose batches run at the same time."""

from collections.abc import Sequence

from server.onnx.engine import Engine
from server.onnx.execution_provider import ExecutionProvider
from server.onnx.graph_file import Graph
from server.onnx.session_settings import SessionSettings


def load(
    graph: Graph,
    threads: int,
    providers: Sequence[ExecutionProvider],
    settings: SessionSettings,
    *,
    shared: bool,
    deterministic: bool,
) -> list[Engine]:
    """An engine for each instance, which runs on the provider in its place.

    `shared`: instances on the same provider share one engine, its weights and its threads. Raises
    StartError as Engine does; then none is left open.
    """
    engines: list[Engine] = []
    try:
        for number, provider in enumerate(providers):
            first = providers.index(provider)
            if shared and first < number:
                engines.append(engines[first])
                continue
            alone = not shared or providers.count(provider) == 1
            engines.append(
                Engine(
                    graph.path,
                    threads,
                    provider,
                    graph=graph,
                    deterministic=deterministic,
                    settings=settings,
                    alone=alone,
                )
            )
    except Exception:
        close(engines)
        raise
    return engines


def close(engines: Sequence[Engine]) -> None:
    """Release the weights of each."""
    for engine in set(engines):
        engine.close()
