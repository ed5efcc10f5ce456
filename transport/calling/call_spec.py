"""What a call is made of, and what it needs of its channel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from transport.loop import Loop

if TYPE_CHECKING:
    from transport.calling.client_call import ClientCall


@dataclass(frozen=True, slots=True)
class CallSpec:
    """What a call asks for, apart from its messages."""

    block: bytes
    deserialize: Callable[[memoryview], Any] | None
    timeout_s: float | None
    wait_for_ready: bool
    compression: str
    # Of answers that nobody has taken; more are not received.
    receive_ahead_bytes: int


class Dispatcher(Protocol):
    """The channel, as its calls see it."""

    loop: Loop

    def dispatch(self, call: "ClientCall", block: bytes) -> None:
        """Begin the call on a connection, now or when there is one."""

    def forget(self, call: "ClientCall") -> None:
        """The call does not wait for a connection any more."""
