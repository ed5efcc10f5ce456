"""Let calls through to their handlers only with a token that permits them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from protos import text_file
from protos.errors import InvalidText
from server.errors import Forbidden, ServingError, StartError, Unauthenticated
from server.rpc import status
from server.rpc.rpcs import RPCS
from server.rpc.security import tokens
from server.rpc.security.tokens import Permission, Token
from server.rpc.security.watched_files import Contents, WatchedFiles

TOKEN_FILE = "--token-file"
_SCHEME = "bearer"

# None: open to everybody.
PERMISSION_OF: Mapping[str, Permission | None] = {
    **{rpc.method: rpc.permission for rpc in RPCS},
    f"/{health.SERVICE_NAME}/Check": None,
    f"/{health.SERVICE_NAME}/Watch": None,
    f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": Permission.INFER,
}


class Authorization(grpc.ServerInterceptor):  # type: ignore[misc]
    """Checks the token of each call, and of each stream as it opens, against a file."""

    def __init__(self, file: Path, refusing: ThreadPoolExecutor) -> None:
        """Read the file, which is checked for changes with each call; StartError names it.

        `refusing` runs the rejections, so that they are quick while inference holds all threads.
        """

        def read(contents: Contents) -> tuple[Token, ...]:
            try:
                return tokens.parse(text_file.decode(contents[TOKEN_FILE]))
            except (InvalidText, StartError) as error:
                raise StartError(f"{TOKEN_FILE} {file}: {error}") from None

        self._tokens = WatchedFiles({TOKEN_FILE: file}, read)
        self._refusing = refusing

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """The call's own handler, or one that rejects the call without reading its message."""
        # First, because looking the handler up starts its bookkeeping.
        try:
            self._check(handler_call_details)
        except ServingError as error:
            return self._refusal(error)
        handler = continuation(handler_call_details)
        if handler is not None and handler_call_details.method not in PERMISSION_OF:
            raise AssertionError(f"{handler_call_details.method} has no permission")
        return handler

    def _check(self, call: grpc.HandlerCallDetails) -> None:
        needed = PERMISSION_OF.get(call.method)
        if needed is None:
            return
        token = _bearer(call.invocation_metadata)
        permitted = tokens.permissions(self._tokens.current(), token)
        if permitted is None:
            raise Unauthenticated("invalid bearer token")
        if needed not in permitted:
            name = call.method.rpartition("/")[2]
            raise Forbidden(f"{name} requires a token with the permission {needed}")

    def _refusal(self, error: ServingError) -> grpc.RpcMethodHandler:
        def refuse(messages: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:
            context.abort(*status.of(error))
            raise error

        refuse.experimental_thread_pool = self._refusing  # type: ignore[attr-defined]
        # For every RPC: only a streaming handler starts before the first message has arrived.
        return grpc.stream_stream_rpc_method_handler(refuse)


def _bearer(metadata: Sequence[tuple[str, str]]) -> str:
    """The bearer token in a call's metadata."""
    headers = [value for key, value in metadata if key == "authorization"]
    if len(headers) == 1:
        scheme, _, token = headers[0].partition(" ")
        if scheme.lower() == _SCHEME:
            return token.strip()
    raise Unauthenticated("got no token, expected metadata 'authorization: Bearer TOKEN', once")
