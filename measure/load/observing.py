"""Observe every server under load: its statistics, and its process or its metrics."""

import contextlib
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit, urlunsplit

from client.connection.channel import RetryPolicy
from client.errors import UsageError
from measure.load.settings import Settings
from measure.load.target import Target
from measure.servers.beside import Beside, Observed
from measure.servers.replicas import connected
from measure.servers.server_use import ServerMetrics, ServerProcess, Source
from transport.addresses import parse
from transport.calling.resolving import plain

# Do not wait for a server that is too busy to report its statistics.
_TIMEOUT_S = 2.0


@contextlib.contextmanager
def observing(settings: Settings, target: Target, models: Collection[str]) -> Iterator[Beside]:
    """Read the servers of a target while the block runs; `models`: those under load.

    UsageError if metrics that were asked for cannot be read.
    """
    sources = _sources(settings, target)
    credentials = settings.credential_files.read()
    with contextlib.ExitStack() as stack:
        yield Beside(
            [
                Observed(
                    replica.name,
                    stack.enter_context(
                        connected(
                            replica,
                            settings.model,
                            settings.version,
                            credentials,
                            deadline_s=_TIMEOUT_S,
                            retry=RetryPolicy(attempts=1),
                        )
                    ),
                    source,
                )
                for replica, source in zip(target.replicas, sources, strict=True)
            ],
            models,
        )


def _sources(settings: Settings, target: Target) -> list[Source | None]:
    """Where each server's use of the machine is read."""
    if settings.server_metrics is not None:
        return [ServerMetrics(url) for url in metrics_urls(settings.server_metrics, target)]
    if target.pid is not None:
        return [ServerProcess(target.pid)]
    return [None] * len(target.replicas)


def metrics_urls(text: str, target: Target) -> list[str]:
    """The URL of each server's metrics.

    They are separated by commas, in the order of the addresses. One URL of the name that stands for
    the servers stands for one of each, too. UsageError for another number of them.
    """
    urls = text.split(",")
    servers = len(target.replicas)
    if len(urls) == servers:
        return urls
    if len(urls) == 1 and not target.address.startswith("unix:"):
        parts = urlsplit(urls[0])
        if parts.hostname == parse(plain(target.address.partition(",")[0]))[0].lower():
            return [
                urlunsplit(parts._replace(netloc=_at(each.address, parts.port)))
                for each in target.replicas
            ]
    raise UsageError(
        f"--server-metrics: got {len(urls)} URLs for {servers} servers, expected one for each, in "
        "the order of --address"
    )


def _at(address: str, port: int | None) -> str:
    host = address.rpartition(":")[0]
    return host if port is None else f"{host}:{port}"
