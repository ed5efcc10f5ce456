"""Use two clients of one protocol: `python both_clients.py ADDRESS FIRST SECOND [THIRD]`.

The last words are modules in the order in which to import them; see test_both_clients.
"""

import importlib
import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from script_report import report

ADDRESS, *MODULES = sys.argv[1:]
for module in MODULES:
    importlib.import_module(module)

# Imported already: only the names are wanted.
import grpc  # noqa: E402
import tritonclient.grpc as triton  # noqa: E402
from google.protobuf.descriptor_pool import DescriptorPool  # noqa: E402
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # noqa: E402
    ProtoReflectionDescriptorDatabase,
)

from client import Client  # noqa: E402
from server.app.config import Config  # noqa: E402
from server.app.server import Server  # noqa: E402
from server.loaded_model import model_config  # noqa: E402

X = np.array([[1, 5, 2], [7, 3, 6]], np.float32)
BATCHES = [X, X[::-1]]


def ours():
    with Client(ADDRESS, "pick") as client:
        alone = client.predict(X).tolist()
        return [alone, [labels.tolist() for labels in client.stream(BATCHES)]]


def theirs():
    x = triton.InferInput("x", list(X.shape), "FP32").set_data_from_numpy(X)
    with triton.InferenceServerClient(ADDRESS) as client:
        config = client.get_model_config("pick", as_json=True)["config"]
        return [client.infer("pick", [x]).as_numpy("label").tolist(), config["name"]]


def configuration():
    text = 'max_batch_size: 3 output { name: "y" label_filename: "l" }'
    config = model_config.parse_text(text)
    told = model_config.parse_json('{"maxBatchSize": 3}').max_batch_size
    return [config.max_batch_size, config.output[0].label_filename, told]


def reflection():
    """Fields of two messages of ours, as a server in this process describes them."""
    server = Server(Config(models=Path(mkdtemp()), address="127.0.0.1:0", model_control="explicit"))
    try:
        with grpc.insecure_channel(server.address) as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            file = pool.FindFileContainingSymbol("inference.ModelConfig").name
            health = pool.FindMessageTypeByName("grpc.health.v1.HealthCheckRequest")
            return [file, [field.name for field in health.fields]]
    finally:
        server.drain()


STEPS = [ours, theirs, configuration, reflection]

if __name__ == "__main__":
    report({step.__name__: step for step in STEPS})
