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

Metadata = Sequence[tuple[str, str | bytes]]

# None: open to everybody.
PERMISSION_OF: Mapping[str, Permission | None] = {
    **{rpc.method: rpc.permission for rpc in RPCS},
    f"/{health.SERVICE_NAME}/Check": None,
    f"/{health.SERVICE_NAME}/Watch": None,
    f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": Permission.INFER,
}


class Authorization(grpc.ServerInterceptor):  # type: ignore[misc]
    """Asks each call, and each stream as it opens, for a token of a file."""

    def __init__(self, file: Path, refusing: ThreadPoolExecutor) -> None:
        """Read the file, which is looked at again with each call; StartError names it.

        `refusing` runs the refusals, so that they are quick when inference has every other thread.
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
        """The call's own handler, or one that refuses it without reading what it sends."""
        # First of all, because the handler's own bookkeeping begins with looking it up.
        try:
            self.check(handler_call_details.method, handler_call_details.invocation_metadata)
        except ServingError as error:
            return self._refusal(error)
        handler = continuation(handler_call_details)
        if handler is not None and handler_call_details.method not in PERMISSION_OF:
            raise AssertionError(f"{handler_call_details.method} has no permission")
        return handler

    def check(self, method: str, metadata: Metadata) -> None:
        """Raise Unauthenticated or Forbidden unless a call's metadata permit the method."""
        needed = PERMISSION_OF.get(method)
        if needed is None:
            return
        permitted = tokens.permissions(self._tokens.current(), _bearer(metadata))
        if permitted is None:
            raise Unauthenticated("the token that came is not valid")
        if needed not in permitted:
            name = method.rpartition("/")[2]
            raise Forbidden(f"{name} needs a token with the permission {needed}")

    def _refusal(self, error: ServingError) -> grpc.RpcMethodHandler:
        def refuse(messages: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:
            context.abort(*status.of(error))
            raise error

        refuse.experimental_thread_pool = self._refusing  # type: ignore[attr-defined]
        # Whatever the RPC is: only a handler of streams starts before the first message is here.
        return grpc.stream_stream_rpc_method_handler(refuse)


def _bearer(metadata: Metadata) -> str:
    """The token among a call's metadata."""
    came = [value for key, value in metadata if key == "authorization"]
    if len(came) == 1:
        scheme, _, token = str(came[0]).partition(" ")
        if scheme.lower() == _SCHEME:
            return token.strip()
    raise Unauthenticated("no token came; wanted metadata 'authorization: Bearer TOKEN', once")
