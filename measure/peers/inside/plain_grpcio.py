"""A minimal service: grpcio, protobuf messages, one execution per request.

python plain_grpcio.py GRAPH PORT THREADS
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from session import open_session, run
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

_DATATYPES = {"label": "INT64", "scores": "FP32"}


class Servicer(pb_grpc.GRPCInferenceServiceServicer):
    """ModelInfer, and the readiness calls."""

    def __init__(self, graph: str, threads: int) -> None:
        self._session = open_session(graph, threads)

    def ServerReady(self, request, context):  # noqa: N802
        """Return true."""
        return pb.ServerReadyResponse(ready=True)

    def ModelReady(self, request, context):  # noqa: N802
        """Return true."""
        return pb.ModelReadyResponse(ready=True)

    def ModelInfer(self, request, context):  # noqa: N802
        """Run all rows of the one input."""
        x = np.frombuffer(request.raw_input_contents[0], np.float32)
        wanted = [output.name for output in request.outputs] or list(_DATATYPES)
        results = run(self._session, wanted, x.reshape(request.inputs[0].shape))
        response = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        for name, result in zip(wanted, results, strict=True):
            response.outputs.add(name=name, datatype=_DATATYPES[name], shape=result.shape)
            response.raw_output_contents.append(result.tobytes())
        return response


def main() -> None:
    graph, port, threads = sys.argv[1:]
    server = grpc.server(
        ThreadPoolExecutor(16),
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(graph, int(threads)), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
