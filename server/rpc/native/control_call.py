"""Answer a control RPC in a thread of a pool: it may take as long as it likes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from server.rpc.native import status
from transport.serving.handler import Method, unary
from transport.serving.server_call import ServerCall


def control(handle: Callable[[bytes], bytes], pool: ThreadPoolExecutor) -> Method:
    """A method of one message, which `handle` answers in a thread of the pool."""

    def answer(call: ServerCall, message: bytes) -> None:
        try:
            data = handle(message)
        except Exception as error:
            call.finish(status.of(error))
        else:
            call.answer([data])

    def submit(call: ServerCall, message: memoryview) -> None:
        pool.submit(answer, call, bytes(message))

    return unary(submit)
