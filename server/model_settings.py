"""Derive how a model is queued and run from its configuration."""

from dataclasses import dataclass, replace

from protos.model_config_pb2 import ModelConfig
from server.batching import Limits
from server.errors import LoadError

# ONNX Runtime's own parameter, under the name it has in Triton.
THREADS = "intra_op_thread_count"


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """What a queue refuses: requests beyond `most_requests` (0: none), and those that wait long.

    `timeout_us` is for requests that set none (0: no limit); their own counts where
    `own_timeouts`, but never beyond it.
    """

    most_requests: int = 0
    timeout_us: int = 0
    own_timeouts: bool = True

    @classmethod
    def of(cls, config: ModelConfig) -> "QueuePolicy":
        """The policy of a configuration; without one, requests may set any timeout."""
        batching = config.dynamic_batching
        if not batching.HasField("default_queue_policy"):
            return cls()
        policy = batching.default_queue_policy
        return cls(
            policy.max_queue_size,
            policy.default_timeout_microseconds,
            policy.allow_timeout_override,
        )

    def effective_us(self, asked_us: int) -> int:
        """Microseconds a request may wait that asks for so many; 0 stands for any."""
        if not (self.own_timeouts and asked_us):
            return self.timeout_us
        return min(asked_us, self.timeout_us) if self.timeout_us else asked_us


def batching(config: ModelConfig, limits: Limits) -> Limits:
    """The server's limits, but for what a completed configuration says otherwise."""
    wanted = config.dynamic_batching
    group_rows = max(wanted.preferred_batch_size, default=limits.group_rows)
    delay_us = wanted.max_queue_delay_microseconds
    most_rows = config.max_batch_size or 1
    return replace(
        limits,
        group_rows=min(group_rows, most_rows),
        slice_rows=min(max(group_rows, limits.slice_rows), most_rows),
        queue_delay_ns=delay_us * 1000 if delay_us else limits.queue_delay_ns,
    )


def threads(config: ModelConfig, default: int) -> int:
    """Threads of one execution."""
    text = config.parameters[THREADS].string_value if THREADS in config.parameters else "0"
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise LoadError(f"parameter {THREADS} is {text!r}; wanted a number, 0 for the server's own")
    return int(text) or default
