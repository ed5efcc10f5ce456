"""The Python client; the measuring instrument.

>>> from client import Client
>>> with Client("127.0.0.1:8001") as client:
...     labels = client.predict(x)  # x: [n, features]
"""

import importlib
from typing import TYPE_CHECKING, Any

from client.arrays import Rows
from client.batch_stream import BatchAnswer
from client.client import Client
from client.connection.call_options import CallOptions
from client.connection.channel import RetryPolicy
from client.connection.credentials import Credentials
from client.errors import (
    ClientError,
    DeadlineExceeded,
    Interrupted,
    RequestFailed,
    Unavailable,
    Unreachable,
    UsageError,
)
from client.model_input import ModelInput
from protos.codec import InferResponse
from protos.errors import OutputMissing
from transport.calling.resolving import Resolving

if TYPE_CHECKING:
    from client.async_client import AsyncClient

__all__ = [
    "AsyncClient",
    "BatchAnswer",
    "CallOptions",
    "Client",
    "ClientError",
    "Credentials",
    "DeadlineExceeded",
    "InferResponse",
    "Interrupted",
    "ModelInput",
    "OutputMissing",
    "RequestFailed",
    "Resolving",
    "RetryPolicy",
    "Rows",
    "Unavailable",
    "Unreachable",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    """Import AsyncClient when it is used: asyncio takes longer than all that Client needs."""
    if name == "AsyncClient":
        return importlib.import_module("client.async_client").AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
