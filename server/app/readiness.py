"""Report the state of the service to systemd, or to another supervisor with its protocol.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import logging
import socket

READY, STOPPING = "READY=1", "STOPPING=1"
# For a supervisor that does not read.
_SEND_S = 1.0
_log = logging.getLogger(__name__)


def notify(address: str | None, state: str) -> None:
    """Send `state` to the datagram socket at `address`: a path, or @NAME of an abstract one.

    None: nobody asked for it. A failure is logged, and the service goes on.
    """
    if address is None:
        return
    name = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
            notifier.settimeout(_SEND_S)
            notifier.sendto(state.encode(), name)
    except (OSError, ValueError) as error:
        _log.warning("supervisor not notified", extra={"address": address, "error": str(error)})
