"""Open a channel to one server, or to several that serve the same."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from client.connection.addresses import authority
from client.connection.credentials import Credentials
from protos import inference_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Protobuf's own limit of one message.
MAX_MESSAGE_BYTES = 2**31 - 1
# By default gRPC backs off for up to two minutes, in which the other servers may stop too.
_MOST_RECONNECT_BACKOFF_MS = 5_000
# Timeout of a connection attempt, in place of gRPC's 20 s. The option has another name, and sets
# both.
_CONNECT_TIMEOUT_MS = 10_000
_BALANCED = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # The whole server. A server without a health service counts as healthy.
    "healthCheckConfig": {"serviceName": ""},
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How UNAVAILABLE is retried: with exponential backoff, in seconds.

    Inference keeps no state, so sending a request again is safe. On a stream only messages without
    an answer are sent again, and attempts count from the last answer.
    """

    attempts: int = 4
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0

    def wait(self, failures: int, end_s: float | None) -> bool:
        """Wait before the next attempt, after `failures` in a row.

        False, at once, if there is no attempt left or `end_s` (time.monotonic) comes first.
        """
        backoff_s = min(self.initial_backoff_s * 2.0 ** (failures - 1), self.max_backoff_s)
        # Random by a fifth, as in gRPC's own retries: clients that failed together spread out.
        backoff_s *= random.uniform(0.8, 1.2)
        too_late = end_s is not None and time.monotonic() + backoff_s >= end_s
        if failures >= self.attempts or too_late:
            return False
        time.sleep(backoff_s)
        return True


def open_channel(
    addresses: Sequence[str], credentials: Credentials, keepalive_s: float | None = None
) -> grpc.Channel:
    """Open a channel on which nothing is retried.

    Several servers are used in turn: those that can be reached and do not report as unhealthy.
    `keepalive_s`: as in `Client`. UsageError if the addresses cannot be combined.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # gRPC's retries lose messages of streams, and stop once an answer has begun.
        ("grpc.enable_retries", 0),
        # Otherwise calls share a process-wide connection, and with it one flow-control window.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_reconnect_backoff_ms", _MOST_RECONNECT_BACKOFF_MS),
        ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS),
    ]
    if len(addresses) > 1:
        options.append(("grpc.service_config", json.dumps(_BALANCED)))
        # Otherwise the host of calls, and of certificates, would be the list of all addresses.
        options.append(("grpc.default_authority", authority(addresses)))
    if keepalive_s is not None:
        keepalive_ms = round(1000 * keepalive_s)
        options += [
            ("grpc.keepalive_time_ms", keepalive_ms),
            ("grpc.keepalive_timeout_ms", keepalive_ms),
            # gRPC sends no other ping while its own throughput probe has no answer.
            ("grpc.http2.ping_timeout_ms", keepalive_ms),
        ]
    return credentials.channel(addresses, options)
