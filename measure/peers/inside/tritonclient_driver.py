"""Drive servers with tritonclient, on commands in JSON lines on stdin.

    python tritonclient_driver.py EXAMPLES.npy

    {"op": "open", "id": I, "address": A, "model": M, "shared_memory": B, "timeout_s": S}
    {"op": "turn", "id": I, "rows": N, "starts": [...]}
    {"op": "close", "id": I}

Each is answered by one line: {"ok": true, ...} or {"failed": text, "code": "UNKNOWN"}, as
measure/core/child_process.py reads them. A turn gives "latencies_ns" [batches]
and "labels" [batches, rows]. Runs apart, because its protobuf stubs clash with ours.
"""

import json
import signal
import sys
import time

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, shared_memory

_CALL_TIMEOUT_S = 120.0


class Target:
    """One server and model; with shared memory, also the server's region of the examples."""

    def __init__(self, examples, address, model, shared, timeout_s) -> None:
        self._examples = examples
        self._model = model
        self._client = triton.InferenceServerClient(address)
        self._output = triton.InferRequestedOutput("label")
        self._region = None
        self._wait(timeout_s)
        if shared:
            self._name = f"bench{id(self)}"
            size = examples.nbytes
            self._region = shared_memory.create_shared_memory_region(self._name, self._name, size)
            shared_memory.set_shared_memory_region(self._region, [examples])
            self._client.register_system_shared_memory(self._name, self._name, size)

    def _wait(self, timeout_s) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if self._client.is_model_ready(self._model, client_timeout=1.0):
                    return
            except InferenceServerException:
                pass
            if time.monotonic() > deadline:
                raise InferenceServerException(f"not ready within {timeout_s:g} s")
            time.sleep(0.2)

    def turn(self, rows, starts):
        """Predict batches one after the other."""
        latencies, labels = [], []
        for start in starts:
            started_ns = time.perf_counter_ns()
            result = (
                self._client.infer(
                    self._model,
                    [self._input(start, rows)],
                    outputs=[self._output],
                    client_timeout=_CALL_TIMEOUT_S,
                )
                .as_numpy("label")
                .reshape(-1)
            )
            latencies.append(time.perf_counter_ns() - started_ns)
            labels.append(result.tolist())
        return {"latencies_ns": latencies, "labels": labels}

    def _input(self, start, rows):
        x = self._examples[start : start + rows]
        tensor = triton.InferInput("x", x.shape, "FP32")
        if self._region is None:
            return tensor.set_data_from_numpy(x)
        row_bytes = self._examples.strides[0]
        tensor.set_shared_memory(self._name, x.nbytes, offset=start * row_bytes)
        return tensor

    def close(self) -> None:
        """Unregister and remove the examples."""
        if self._region is not None:
            try:
                self._client.unregister_system_shared_memory(self._name)
            finally:
                shared_memory.destroy_shared_memory_region(self._region)
                self._region = None
        self._client.close()


def obey(targets, examples, command):
    """Execute one command; return the answer."""
    op, name = command["op"], command["id"]
    if op == "open":
        targets[name] = Target(
            examples,
            command["address"],
            command["model"],
            command["shared_memory"],
            command["timeout_s"],
        )
        return {}
    if op == "turn":
        return targets[name].turn(command["rows"], command["starts"])
    targets.pop(name).close()
    return {}


def main() -> None:
    # Shared memory must not outlive the process that made it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    examples = np.load(sys.argv[1])
    targets: dict[str, Target] = {}
    print(json.dumps({"ok": True}), flush=True)
    try:
        for line in sys.stdin:
            try:
                answer = {"ok": True, **obey(targets, examples, json.loads(line))}
            except (InferenceServerException, shared_memory.SharedMemoryException) as error:
                answer = {"failed": str(error), "code": "UNKNOWN"}
            print(json.dumps(answer), flush=True)
    finally:
        for target in targets.values():
            target.close()


if __name__ == "__main__":
    main()
