"""The application for Ray Serve: servers, and an HTTP page with their addresses."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.exceptions import RayError
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from deploy.ray import options
from deploy.ray.directory import directory
from deploy.ray.replica import Replica

# Clients look addresses up every 5 s, a tenth more or less.
_LEAVE_S = 6.0
# Beside its grace period, for all else that a server does at its end.
_END_S = 10.0
_ANSWER_S = 5.0
_UNAVAILABLE = 503
_ANY_HOST = "127.0.0.1"
# Ray's threads, which are there first, would each give the server's threads another arena.
_ENVIRONMENT = {"env_vars": {"MALLOC_ARENA_MAX": "1"}}


class Page:
    """Answers a GET with the addresses of the servers, one a line; 503 while there is none."""

    def __init__(self, servers: object) -> None:
        """`servers`: the deployment of servers, which is not called."""
        del servers
        self._directory: Any = None

    async def __call__(self, request: Request) -> PlainTextResponse:
        """The page."""
        del request
        try:
            if self._directory is None:
                self._directory = directory(serve.get_replica_context().app_name)
            addresses = await asyncio.wait_for(
                self._directory.addresses.remote(), timeout=_ANSWER_S
            )
        except (RayError, TimeoutError) as error:
            self._directory = None
            return PlainTextResponse(f"no directory: {type(error).__name__}\n", _UNAVAILABLE)
        if not addresses:
            return PlainTextResponse("no server is listed\n", _UNAVAILABLE)
        return PlainTextResponse("".join(f"{address}\n" for address in addresses))


def application(arguments: Mapping[str, Any]) -> serve.Application:
    """The application of a configuration's `args`.

    `options`: the servers' options, a list of words. `leave_s`: seconds between the end of a
    server's listing and its drain. OptionsRefused says which of them is at fault.
    """
    unknown = sorted(arguments.keys() - {"options", "leave_s"})
    if unknown:
        raise options.OptionsRefused(f"args: got {unknown[0]!r}, expected options and leave_s")
    words = [str(word) for word in arguments.get("options", ())]
    leave_s = float(arguments.get("leave_s", _LEAVE_S))
    # Before any is placed.
    config = options.config(words, os.environ, _ANY_HOST, 1)
    servers = serve.deployment(
        Replica,
        name="Server",
        health_check_period_s=1,
        # A replica is started before one is stopped for it.
        max_surge_percent=25,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=leave_s + config.grace_s + _END_S,
        ray_actor_options={"num_cpus": 1, "runtime_env": _ENVIRONMENT},
    )
    page = serve.deployment(
        Page,
        name="Addresses",
        health_check_period_s=1,
        max_surge_percent=25,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options={"num_cpus": 0},
    )
    return page.bind(servers.bind(words, leave_s))
