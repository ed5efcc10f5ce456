"""An inference request that a model has, until it ends."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from server.batching.request import Request
from server.batching.shared_memory import Placement, Region
from server.loaded_model.model import Model


@dataclass(slots=True, eq=False)
class Pending:
    """An accepted message that waits for its result.

    It holds no tensor: tensors belong to the request, which drops them once they are computed.
    """

    id: str
    model: Model
    request: Request
    # Of its call. The caller itself would lead back to the call, which holds this.
    method: str
    metadata: Sequence[tuple[str, str | bytes]]
    receive_ns: int | None
    decode_ns: int
    wants_timings: bool
    shared_outputs: Mapping[str, tuple[Region, Placement]]
    class_counts: Mapping[str, int]
    # Whether there is room for its encoded answer, of so many bytes.
    cover: Callable[[int], bool] = lambda _: True
    _unclaimed: threading.Lock = field(default_factory=threading.Lock)

    def cancel(self) -> None:
        """Drop the request: nobody waits for its answer any more."""
        self.model.cancel(self.request)

    def claim(self) -> bool:
        """Whether this is the first call: the threads that may end a request count it once."""
        return self._unclaimed.acquire(blocking=False)
