"""Derive the settings of a model's queue and execution from its configuration."""

from dataclasses import dataclass, replace

from protos.model_config_pb2 import ModelConfig
from server.batching.policy import Limits
from server.errors import LoadError

ROWS_MAY_MIX = "rows_may_mix"


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Limits of a queue: most waiting requests (0: no limit), and how long they may wait.

    `timeout_us` applies to requests that set none (0: no limit); with `own_timeouts` a request may
    set a shorter one.
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
        """Microseconds that a request may wait if it asks for `asked_us`; 0: no limit."""
        if not (self.own_timeouts and asked_us):
            return self.timeout_us
        return min(asked_us, self.timeout_us) if self.timeout_us else asked_us


def group_rows(config: ModelConfig) -> int:
    """Most rows gathered for one execution, 0 if the server chooses."""
    return max(config.dynamic_batching.preferred_batch_size, default=0)


def batching(
    config: ModelConfig, group_rows: int, queue_delay_ns: int, *, fixed: bool = False
) -> Limits:
    """Batch limits of a completed configuration; `queue_delay_ns` is the default delay.

    `fixed`: every execution costs as much as a full group, so none is larger, and the first of a
    stream waits for as many rows as any other.
    """
    most_rows = config.max_batch_size or 1
    delay_us = config.dynamic_batching.max_queue_delay_microseconds
    delay_ns = delay_us * 1000 if delay_us else queue_delay_ns
    limits = Limits.of(group_rows, most_rows, delay_ns)
    if not fixed:
        return limits
    return replace(limits, slice_rows=limits.group_rows, first_rows=limits.group_rows)


def execution(limits: Limits, threads: int) -> dict[str, str]:
    """Settings that fix the bits of a row's outputs, as parameters of the configuration."""
    return {
        "deterministic": "on",
        "deterministic_rows": str(limits.group_rows),
        "deterministic_threads": str(threads),
    }


def rows_may_mix(config: ModelConfig) -> bool:
    """Whether rows may share executions although they change each other's outputs."""
    if ROWS_MAY_MIX not in config.parameters:
        return False
    text = config.parameters[ROWS_MAY_MIX].string_value
    if text not in ("true", "false"):
        raise LoadError(f"parameter {ROWS_MAY_MIX} is {text!r}; expected 'true' or 'false'")
    return text == "true"
