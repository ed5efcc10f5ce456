"""Display names of the systems."""

LABELS = {
    "local": "limit: ONNX Runtime in process",
    "raw_tcp": "limit: raw TCP socket",
    "raw_unix": "limit: raw Unix socket",
    "unary": "this service, unary",
    "stream": "this service, stream",
    "shm": "this service, shared memory",
    "triton": "Triton",
    "triton_shm": "Triton, shared memory",
    "kserve": "KServe",
    "mlserver": "MLServer",
    "plain_grpcio": "plain grpcio",
    "service_perf": "perf_analyzer: this service",
    "triton_perf": "perf_analyzer: Triton",
    "service_perf_shm": "perf_analyzer: this service, shared memory",
    "triton_perf_shm": "perf_analyzer: Triton, shared memory",
}


def label(system: str) -> str:
    """Return the display name of a system."""
    return LABELS.get(system, system)
