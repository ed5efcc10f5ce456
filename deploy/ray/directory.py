"""The addresses of the servers of one application, in an actor that survives its node."""

import threading
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

NAMESPACE = "argmax-serving"
RENEW_S = 1.0
# A server that has not renewed its address for so long is gone, or hangs.
_STALE_S = 5.0
_ANSWER_S = 10.0


class Directory:
    """Addresses that are renewed; nothing is lost with it, since all are renewed."""

    def __init__(self) -> None:
        self._renewed_s: dict[str, float] = {}

    def renew(self, address: str) -> None:
        """List a server for some seconds more."""
        self._renewed_s[address] = time.monotonic()

    def remove(self, address: str) -> int:
        """List a server no more; the number of those that are still listed."""
        self._renewed_s.pop(address, None)
        return len(self.addresses())

    def addresses(self) -> list[str]:
        """All servers that are listed now."""
        oldest_s = time.monotonic() - _STALE_S
        self._renewed_s = {
            address: renewed_s
            for address, renewed_s in self._renewed_s.items()
            if renewed_s > oldest_s
        }
        return list(self._renewed_s)


def directory(application: str) -> Any:
    """The handle of an application's directory, which is made unless it is there."""
    actor = ray.remote(Directory).options(
        name=application,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
    )
    return actor.remote()


class Entry:
    """One server's place in the directory, renewed by a thread until `remove`."""

    def __init__(self, application: str, address: str) -> None:
        """List the server; RayError if that is not possible."""
        self._application = application
        self._address = address
        self._directory = directory(application)
        self._ended = threading.Event()
        self._renew()
        self._thread = threading.Thread(target=self._run, name="directory", daemon=True)
        self._thread.start()

    def remove(self) -> None:
        """List the server no more; the last one ends the directory."""
        self._ended.set()
        self._thread.join()
        try:
            left = ray.get(self._directory.remove.remote(self._address), timeout=_ANSWER_S)
        except RayError:
            return  # without being renewed, it is dropped
        if not left:
            ray.kill(self._directory)

    def _run(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                self._renew()
            except RayActorError:
                # It is being restarted, or another replica was the last one for a moment.
                self._directory = directory(self._application)
            except GetTimeoutError:
                continue

    def _renew(self) -> None:
        ray.get(self._directory.renew.remote(self._address), timeout=_ANSWER_S)
