"""Open a channel to one server, or to several that serve the same."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from client.connection.addresses import authority, host
from client.connection.credentials import Credentials
from client.errors import UsageError
from client.version import client_name
from protos import inference_pb2 as pb
from transport.calling.channel import Channel, ChannelOptions
from transport.calling.resolving import Resolving
from transport.calling.servers import POLICIES, Policy
from transport.options import ConnectionOptions

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Protobuf's own limit of one message.
MAX_MESSAGE_BYTES = 2**31 - 1
_CONNECT_TIMEOUT_S = 10.0
# Between attempts to connect: at first, and at most. The other servers may stop meanwhile.
_BACKOFF_S = (0.2, 5.0)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How UNAVAILABLE and calls that were cut are retried: with exponential backoff, in seconds.

    A call was cut if its stream was reset, or cancelled by somebody else. Inference keeps no state,
    so sending a request again is safe. On a stream only messages without an answer are sent again,
    and attempts count from the last answer.
    """

    attempts: int = 4
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0

    def pause_s(self, failures: int, end_s: float | None) -> float | None:
        """Seconds to wait before the next attempt, after `failures` in a row.

        None if there is no attempt left or `end_s` (time.monotonic) comes first.
        """
        backoff_s = min(self.initial_backoff_s * 2.0 ** (failures - 1), self.max_backoff_s)
        # Random by a fifth, as in gRPC's own retries: clients that failed together spread out.
        backoff_s *= random.uniform(0.8, 1.2)
        too_late = end_s is not None and time.monotonic() + backoff_s >= end_s
        return None if failures >= self.attempts or too_late else backoff_s


@dataclass(frozen=True, slots=True)
class Balancing:
    """How calls are spread over servers; UsageError for an unknown policy, and times of 0.

    `policy`: "least_requests", the server with the fewest calls of this client; or "round_robin",
    all in turn. `resolving`: how names are looked up.
    """

    policy: Policy = "least_requests"
    resolving: Resolving = Resolving()

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UsageError(f"balance: got {self.policy!r}, expected {' or '.join(POLICIES)}")
        if not 0 < self.resolving.every_s < math.inf:
            raise UsageError(f"every_s: got {self.resolving.every_s!r}, expected seconds over 0")


def open_channel(
    addresses: Sequence[str],
    credentials: Credentials,
    keepalive_s: float | None = None,
    balancing: Balancing = Balancing(),
) -> Channel:
    """Open a channel on which nothing is retried that a server may have seen.

    Of several servers each call goes to one of those that can be reached and do not report as
    unhealthy. `keepalive_s`: as in `Client`. UsageError for bad credentials.
    """
    credentials.check_addresses(addresses)
    context = credentials.tls_context()
    name = credentials.server_name
    if context is not None:
        name = name or host(addresses)
    connection = ConnectionOptions(
        max_message_bytes=MAX_MESSAGE_BYTES,
        keepalive_s=keepalive_s,
        keepalive_timeout_s=keepalive_s or 0.0,
        # A server that is busy may take nothing for as long as the deadline allows.
        send_stall_s=None,
    )
    options = ChannelOptions(
        connection=connection,
        balance=balancing.policy,
        resolving=balancing.resolving,
        user_agent=client_name(),
        server_name=name,
        authority=authority(addresses) if credentials.server_name is None else None,
        watch_health=True,
        connect_s=_CONNECT_TIMEOUT_S,
        backoff_s=_BACKOFF_S,
    )
    return Channel(addresses, options, context)
