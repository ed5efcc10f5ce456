"""The Python client; the measuring instrument.

>>> from client import Client
>>> with Client("127.0.0.1:8001") as client:
...     labels = client.predict(x)  # x: [n, features]
"""

from client.channel import RetryPolicy
from client.client import Client
from client.credentials import Credentials
from client.errors import (
    ClientError,
    DeadlineExceeded,
    RequestFailed,
    Unavailable,
    UsageError,
)

__all__ = [
    "Client",
    "ClientError",
    "Credentials",
    "DeadlineExceeded",
    "RequestFailed",
    "RetryPolicy",
    "Unavailable",
    "UsageError",
]
