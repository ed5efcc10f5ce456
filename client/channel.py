"""Open a channel to one server, or to several that serve the same."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from client.addresses import target
from client.credentials import Credentials
from protos import inference_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Protobuf's own bound on one message.
MAX_MESSAGE_BYTES = 2**31 - 1
# gRPC backs off for up to two minutes otherwise, in which the other servers may go too.
_MOST_RECONNECT_BACKOFF_MS = 5_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How UNAVAILABLE is retried: with exponential backoff, in seconds.

    Inference keeps no state, so sending a request again is safe. gRPC does so for single requests,
    with five attempts at most; of a stream, where it may lose messages, `client.batch_stream` sends
    what has no answer again. There the attempts count since the last answer.
    """

    attempts: int = 4
    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0

    def backoff_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row: random, as gRPC does, by a fifth."""
        wait_s = min(self.initial_backoff_s * 2.0 ** (failures - 1), self.max_backoff_s)
        return wait_s * random.uniform(0.8, 1.2)


def open_channel(
    addresses: Sequence[str],
    retry: RetryPolicy,
    keepalive_s: float | None = None,
    credentials: Credentials | None = None,
) -> grpc.Channel:
    """Open a channel on which single requests are retried.

    Several servers take turns: those that are reached and do not call themselves unhealthy.
    `keepalive_s`, `credentials`: as `Client` says. UsageError when the addresses do not go
    together.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_retries", int(retry.attempts > 1)),
        # The default of 256 KiB would commit every call that carries an example.
        ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
        # Calls share a process-wide connection otherwise, and with it one flow-control window.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_reconnect_backoff_ms", _MOST_RECONNECT_BACKOFF_MS),
        ("grpc.service_config", _service_config(retry, balanced=len(addresses) > 1)),
    ]
    if keepalive_s is not None:
        keepalive_ms = round(1000 * keepalive_s)
        options += [
            ("grpc.keepalive_time_ms", keepalive_ms),
            ("grpc.keepalive_timeout_ms", keepalive_ms),
            # While one of gRPC's own tests of the throughput has no answer it sends no other.
            ("grpc.http2.ping_timeout_ms", keepalive_ms),
        ]
    return (credentials or Credentials()).channel(addresses, target(addresses), options)


def _service_config(retry: RetryPolicy, *, balanced: bool) -> str:
    config: dict[str, Any] = {}
    if retry.attempts > 1:
        config["methodConfig"] = [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": retry.attempts,
                    "initialBackoff": f"{retry.initial_backoff_s}s",
                    "maxBackoff": f"{retry.max_backoff_s}s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
            # gRPC's C++ core loses messages of a stream that it sends again.
            {"name": [{"service": SERVICE, "method": "ModelStreamInfer"}]},
        ]
    if balanced:
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        # The whole server. One without a health service counts as healthy.
        config["healthCheckConfig"] = {"serviceName": ""}
    return json.dumps(config)
