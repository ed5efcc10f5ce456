"""A user's program, as mypy --strict has to take it."""

RIGHT = """
import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client import (
    AsyncClient,
    CallOptions,
    Client,
    ClientError,
    Credentials,
    DeadlineExceeded,
    InferResponse,
    OutputMissing,
    RequestFailed,
    RetryPolicy,
    Rows,
    Unavailable,
    Unreachable,
    UsageError,
)


class Tensor:
    def __array__(self) -> NDArray[np.float32]:
        return np.zeros((2, 3), np.float32)


def inputs() -> Iterator[Rows]:
    yield np.zeros((2, 3))
    yield [[1, 2, 3], [4.5, 5, 6]]
    yield [["text", b"bytes"]]
    yield Tensor()


def scores(client: Client, x: NDArray[np.float64]) -> float:
    response: InferResponse = client.infer({"x": x, "y": [1, 2]}, outputs=["scores"])
    if "scores" not in response:
        raise OutputMissing(", ".join(response.names))
    return float(response["scores"].max())


def names(client: Client) -> list[str]:
    return [tensor.name for tensor in client.metadata().inputs] + [client.default_output()]


async def batches() -> AsyncIterator[Rows]:
    for x in inputs():
        yield x


async def asynchronous() -> int:
    options: CallOptions = {"timeout_s": 1.5, "metadata": [("tenant", "a"), ("key-bin", b"b")]}
    async with AsyncClient(["127.0.0.1:8001"], deadline_s=10) as client:
        several = await asyncio.gather(*(client.predict(x, **options) for x in inputs()))
        async with aclosing(client.stream(batches(), retry=RetryPolicy(attempts=1))) as labels:
            several += [each async for each in labels]
        response: InferResponse = await client.infer({"x": [[1]]}, hedge_after_s=None)
        ready: bool = await client.ready()
        return len(several) + len(response.names) + ready


def main() -> int:
    known = Credentials.of_files(ca=Path("ca.pem"), token=Path("token"))
    retry = RetryPolicy(attempts=2)
    try:
        with Client("127.0.0.1:8001", credentials=known, retry=retry, deadline_s=10) as client:
            client.wait_until_ready(5)
            labels = [client.predict(x) for x in inputs()]
            labels += client.stream(inputs(), metadata=[("tenant", "a")], timeout_s=None)
            several = client.predict_outputs({"a": [[1]], "b": [[2]]}, ["sum", "less"])
            labels.append(several["sum"])
            count: int = client.statistics().execution_count
            return count + len(labels) + int(scores(client, np.ones((1, 3)))) + len(names(client))
    except Unreachable as error:
        return int(error.waiting_helps)
    except (DeadlineExceeded, Unavailable, RequestFailed) as error:
        return len(error.code + error.text)
    except (UsageError, ClientError):
        return 1
"""
