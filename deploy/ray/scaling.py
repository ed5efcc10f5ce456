"""How many replicas a queue asks for: the policy for Serve's autoscaling."""

from typing import Any

_METRIC = "waiting_requests"


class QueuePolicy:
    """As many replicas as keep the requests that wait at each below a bound.

    Serve applies its bounds, factors and delays to the result.
    """

    def __init__(self, waiting_per_replica: float = 8.0) -> None:
        self._most = waiting_per_replica

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """The number of replicas, of Serve's AutoscalingContext; and no state."""
        waiting = (context.aggregated_metrics or {}).get(_METRIC, {})
        return sum(waiting.values()) / self._most, {}
