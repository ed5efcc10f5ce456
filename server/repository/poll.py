"""Poll the model repository for changes."""

import logging
import threading

from server.repository.repository import Repository

_log = logging.getLogger(__name__)


class RepositoryPoll:
    """A thread that polls until `stop`."""

    def __init__(self, repository: Repository, every_s: float) -> None:
        self._repository = repository
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poll", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop polling, after the load that is running."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self._repository.poll()
            except Exception:  # such as a folder that cannot be read for a while
                _log.exception("model repository could not be polled")
