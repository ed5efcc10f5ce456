"""The Python client; the measuring instrument.

>>> from client import Client
>>> with Client("127.0.0.1:8001") as client:
...     labels = client.predict(x)  # x: [n, features]
"""

from client.arrays import Rows
from client.async_client import AsyncClient
from client.batch_stream import BatchAnswer
from client.client import Client
from client.connection.call_options import CallOptions
from client.connection.channel import RetryPolicy
from client.connection.credentials import Credentials
from client.errors import (
    ClientError,
    DeadlineExceeded,
    RequestFailed,
    Unavailable,
    Unreachable,
    UsageError,
)
from client.model_input import ModelInput
from protos.codec import InferResponse
from protos.errors import OutputMissing

__all__ = [
    "AsyncClient",
    "BatchAnswer",
    "CallOptions",
    "Client",
    "ClientError",
    "Credentials",
    "DeadlineExceeded",
    "InferResponse",
    "ModelInput",
    "OutputMissing",
    "RequestFailed",
    "RetryPolicy",
    "Rows",
    "Unavailable",
    "Unreachable",
    "UsageError",
]
