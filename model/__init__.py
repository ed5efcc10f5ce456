"""The linear argmax model: reference, weights, export, verification."""

import os

# As in server.onnx: ONNX Runtime would keep and upload events.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
