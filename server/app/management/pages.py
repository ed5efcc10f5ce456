"""The pages of the management port: a fixed table of paths, each read only."""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from prometheus_client import CollectorRegistry

from protos import inference_pb2 as pb
from server import errors
from server.app.management import exposition, json_messages
from server.app.management.http_server import Response
from server.rpc.rpcs import SERVICE
from server.rpc.servicer import Servicer

# Raises a ServingError for a call of an RPC's path, with this metadata, that is not permitted.
Authorize = Callable[[str, tuple[tuple[str, str | bytes], ...]], None]
# Shows the answer of an RPC to a request with these fields.
Show = Callable[[Any, Mapping[str, str]], Response]

_LIVE: tuple[str, ...] = ("v2", "health", "live")
_READY: tuple[str, ...] = ("v2", "health", "ready")
_STATUSES: Mapping[type[Exception], HTTPStatus] = {
    errors.InvalidInput: HTTPStatus.BAD_REQUEST,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    errors.ModelUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Pages:
    """Answers every path; until `serve` only that the server lives, and is not ready."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._servicer: Servicer | None = None
        self._authorize: Authorize | None = None

    def serve(self, servicer: Servicer, authorize: Authorize | None) -> None:
        """Show what `servicer` answers from now on; the models are loaded.

        `authorize` is asked where the RPC that answers a page takes a permission.
        """
        self._authorize = authorize
        self._servicer = servicer

    def answer(self, path: str, headers: Mapping[str, str]) -> Response | None:
        """The page at a path; None where there is none."""
        parts = tuple(map(unquote, path.split("/")[1:]))
        if parts == ("metrics",):
            text, content_type = exposition.encode(self._registry, headers.get("Accept") or "")
            return Response(HTTPStatus.OK, text, content_type)
        if parts == _LIVE:
            return _json(HTTPStatus.OK, {"live": True})
        if parts == _READY:
            servicer = self._servicer
            ready = servicer is not None and servicer.ServerReady(pb.ServerReadyRequest()).ready
            return _ready({"ready": ready}, ready=ready)
        found = _page(parts)
        return None if found is None else self._described(*found, headers.get("Authorization"))

    def _described(
        self, rpc: str, arguments: Mapping[str, str], show: Show, token: str | None
    ) -> Response:
        if self._servicer is None:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "the models are being loaded")
        try:
            if self._authorize is not None:
                metadata = () if token is None else (("authorization", token),)
                self._authorize(f"/{SERVICE}/{rpc}", metadata)
            request = getattr(pb, f"{rpc}Request")(**arguments)
            return show(getattr(self._servicer, rpc)(request), arguments)
        except errors.ServingError as error:
            status = _STATUSES.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)
            return _error(status, str(error))


def _page(parts: tuple[str, ...]) -> tuple[str, dict[str, str], Show] | None:
    """The RPC that answers a page, the fields of its request, and how its answer is shown."""
    match parts:
        case ("v2",):
            return "ServerMetadata", {}, _message
        case ("v2", "models", name, *more):
            arguments = {"name": name}
            if len(more) >= 2 and more[0] == "versions":
                arguments["version"] = more[1]
                more = more[2:]
            if len(more) <= 1:
                found = _OF_MODELS.get("".join(more))
                return None if found is None else (found[0], arguments, found[1])
    return None


def _message(message: Any, _: Mapping[str, str]) -> Response:
    return Response(HTTPStatus.OK, json_messages.encode(message))


def _config(message: pb.ModelConfigResponse, _: Mapping[str, str]) -> Response:
    return Response(HTTPStatus.OK, json_messages.encode(message.config))


def _model_ready(message: pb.ModelReadyResponse, arguments: Mapping[str, str]) -> Response:
    return _ready({"name": arguments["name"], "ready": message.ready}, ready=message.ready)


# By the last part of the path.
_OF_MODELS: Mapping[str, tuple[str, Show]] = {
    "": ("ModelMetadata", _message),
    "ready": ("ModelReady", _model_ready),
    "config": ("ModelConfig", _config),
    "stats": ("ModelStatistics", _message),
}


def _ready(shown: Mapping[str, object], *, ready: bool) -> Response:
    return _json(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, shown)


def _error(status: HTTPStatus, text: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else {}
    body = json.dumps({"error": text}).encode()
    return Response(status, body, headers=headers)


def _json(status: HTTPStatus, shown: Mapping[str, object]) -> Response:
    return Response(status, json.dumps(shown).encode())
