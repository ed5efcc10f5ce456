"""A replica of Ray Serve that is an ordinary server: its clients call it without a proxy."""

import os
import time
from collections.abc import Sequence

import ray
from ray import serve

from deploy.ray import options
from deploy.ray.directory import Entry
from server.app.memory_guard import MemoryGuard
from server.app.server import Server
from server.app.serving import set_up_process

# The metric on which `queue_policy` scales.
WAITING = "waiting_requests"


class Replica:
    """A server in the replica's process, from its constructor to its end."""

    def __init__(self, words: Sequence[str], leave_s: float) -> None:
        """`words`: options of the server. `leave_s`: from when its clients can know that it leaves
        until it drains. StartError or OptionsRefused says why it cannot serve."""
        cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
        config = options.config(words, os.environ, ray.util.get_node_ip_address(), cores)
        set_up_process(config)
        self._leave_s = leave_s
        self._server: Server | None = Server(config)
        self._guard = MemoryGuard(config.max_inflight_bytes + config.max_stream_bytes)
        self._entry = Entry(serve.get_replica_context().app_name, self._server.address)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve asks for every few seconds, for its autoscaling."""
        return {WAITING: self._server.waiting if self._server is not None else 0}

    def __del__(self) -> None:
        """Leave the directory, then drain: Serve calls this before it ends the process."""
        server = self.__dict__.get("_server")
        if server is None:  # the constructor failed, or Python calls this once more
            return
        self._server = None
        if "_entry" in self.__dict__:
            self._entry.remove()
            time.sleep(self._leave_s)
        server.drain()
        self._guard.close()
