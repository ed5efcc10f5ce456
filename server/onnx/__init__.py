"""ONNX Runtime: sessions, execution providers, page-locked memory."""

import os

# ONNX Runtime reads this when it is imported. Otherwise it keeps a database of events and an
# identifier of the machine below the home folder, and uploads events.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
