"""ONNX Runtime without its telemetry: the one module that imports it, so that nothing else forgets.

It reads the variable when it is imported, and `disable_telemetry_events` afterwards is too late: by
then it has a database of events and an identifier of the machine below the home folder, and looks
up the host that it uploads to.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ("ort",)
