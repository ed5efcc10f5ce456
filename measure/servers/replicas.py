"""Find the servers that addresses stand for, and connect to each of them alone."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from client.client import Client
from client.connection import addresses
from client.connection.channel import RetryPolicy
from client.connection.credentials import Credentials
from client.errors import UsageError
from transport.addresses import parse
from transport.calling.lists import finder, is_list
from transport.calling.resolving import Server, by_getaddrinfo, fixed, plain


@dataclass(frozen=True, slots=True)
class Replica:
    """One of the servers that share the requests.

    `address` connects to it alone. `name` is what a call to it reports as its server. `host` is the
    name that its certificate must have, if that does not follow from `address`.
    """

    address: str
    name: str
    host: str | None = None


def replicas_of(text: str) -> tuple[Replica, ...]:
    """The servers that addresses, separated by commas, stand for now, each once.

    A name or list that cannot be looked up counts as one server, which no call will reach.
    UsageError for an invalid address.
    """
    parsed = addresses.parse(text)
    found = tuple(dict.fromkeys(each for address in parsed for each in _listed(address)))
    if len(found) == 1:
        return found
    host = addresses.host(parsed)
    return tuple(replace(each, host=host) for each in found)


def may_be_several(text: str) -> bool:
    """Whether addresses, separated by commas, can stand for several servers: one may, as a name."""
    parsed = addresses.parse(text)
    return addresses.several(parsed) or fixed(parsed[0]) is None


def connected(
    replica: Replica,
    model: str,
    version: str,
    credentials: Credentials,
    *,
    deadline_s: float | None = None,
    retry: RetryPolicy | None = None,
) -> Client:
    """A client of one server alone."""
    if replica.host is not None and credentials.ca and credentials.server_name is None:
        credentials = replace(credentials, server_name=replica.host)
    return Client(
        replica.address,
        model,
        version,
        deadline_s=deadline_s,
        retry=retry,
        credentials=credentials,
    )


@contextlib.contextmanager
def naming(replica: Replica, replicas: Sequence[Replica]) -> Iterator[None]:
    """Put the address of one of several servers before a UsageError about it."""
    try:
        yield
    except UsageError as error:
        if len(replicas) < 2:
            raise
        raise UsageError(f"{replica.address}: {error}") from None


def _listed(address: str) -> Iterator[Replica]:
    server = None if is_list(address) else fixed(address)
    if server is not None:
        yield Replica(address, server.name)
        return
    servers = _looked_up(address)
    if len(servers) < 2:
        yield Replica(address, servers[0].name if servers else address)
        return
    for server in servers:
        yield Replica(server.ends[0], server.name)


def _looked_up(address: str) -> tuple[Server, ...]:
    try:
        find = finder(address)
        return by_getaddrinfo(*parse(plain(address))) if find is None else find()
    except (OSError, UnicodeError):
        return ()
