"""Predict with the Python client library, and hold every label against a file.

Run it in the repository's root: python -m examples.python.predict ADDRESS INPUTS LABELS [MODEL]
"""

import sys
import time

import numpy as np

from client import Client

DEADLINE_S = 60.0  # of each call


def main(address: str, inputs: str, labels: str, model: str = "linear_argmax") -> str | None:
    """Return what is wrong, None if nothing is."""
    expected = np.fromfile(labels, "<i8")
    x = np.memmap(inputs, "<f4", "r").reshape(len(expected), -1)

    # UNAVAILABLE is retried, see client.RetryPolicy; other errors are raised as RequestFailed.
    with Client(address, model, deadline_s=DEADLINE_S) as client:
        server, metadata = client.server_metadata(), client.metadata()
        print(f"server   {server.name} {server.version}: {', '.join(server.extensions)}")
        for kind, tensors in (("input", metadata.inputs), ("output", metadata.outputs)):
            for tensor in tensors:
                print(f"{kind:8} {tensor.name} {tensor.datatype} {list(tensor.shape)}")

        start = time.perf_counter()
        (label,) = client.predict(x[0])
        print(f"one      label {label}, {(time.perf_counter() - start) * 1e3:.1f} ms")

        # Cut into messages of 4 MiB on one stream, read ahead by the server, answered in order.
        start = time.perf_counter()
        got = client.predict(x)
        rate = len(got) / (time.perf_counter() - start)

    wrong = np.count_nonzero(got != expected) + (label != expected[0])
    print(f"stream   {len(got)} labels, {wrong} wrong, {rate:.0f} examples/s")
    return f"{wrong} labels are wrong" if wrong else None


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        sys.exit()
    sys.exit(main(*sys.argv[1:]))
