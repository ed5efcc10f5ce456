"""KServe's Python model server with the same session, gRPC only, on loopback only.

python kserve_server.py GRAPH PORT THREADS
"""

import asyncio
import sys

import kserve.protocol.grpc.server as kserve_grpc
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from session import open_session, run

_MODEL = "linear_argmax"
_MAX_MESSAGE_BYTES = 2**31 - 1
# The default of KServe's --max_threads.
_THREADS = 4


class Linear(Model):
    """KServe's base class decodes requests, encodes responses."""

    def __init__(self, graph: str, threads: int) -> None:
        super().__init__(_MODEL)
        self._session = open_session(graph, threads)
        self.ready = True

    def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        """Run all rows of the one input."""
        x = payload.inputs[0].as_numpy()
        (labels,) = run(self._session, ["label"], x)
        output = InferOutput("label", list(labels.shape), "INT64")
        output.set_data_from_numpy(labels, binary_data=True)
        return InferResponse(payload.id, _MODEL, [output])


def listen_on_loopback() -> None:
    """Make KServe's server listen on 127.0.0.1, for which it has no option."""
    original = kserve_grpc.aio.server

    def server(*args, **options):
        made = original(*args, **options)
        add_port = made.add_insecure_port
        made.add_insecure_port = lambda address: add_port(address.replace("[::]", "127.0.0.1"))
        return made

    kserve_grpc.aio.server = server


def main() -> None:
    graph, port, threads = sys.argv[1:]
    models = ModelRepository()
    models.update(Linear(graph, int(threads)))
    limits = {
        "grpc_max_send_message_length": _MAX_MESSAGE_BYTES,
        "grpc_max_receive_message_length": _MAX_MESSAGE_BYTES,
    }
    listen_on_loopback()
    server = kserve_grpc.GRPCServer(
        int(port), DataPlane(models), ModelRepositoryExtension(models), limits
    )
    asyncio.run(server.start(_THREADS))


if __name__ == "__main__":
    main()
