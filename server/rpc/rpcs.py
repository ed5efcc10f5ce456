"""Every RPC of GRPCInferenceService: its handler, its permission, the threads it runs in."""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from protos import inference_pb2 as pb
from protos.errors import InvalidMessage
from protos.weight import check_fields
from server.rpc import status
from server.rpc.admission import Admission, Receiver, on_pool
from server.rpc.native.control_call import ControlMethods
from server.rpc.native.methods import InferenceMethods
from server.rpc.repository_servicer import RepositoryServicer
from server.rpc.security.tokens import Permission
from server.rpc.servicer import Servicer
from server.rpc.settings_servicer import SettingsServicer
from server.rpc.shared_memory_servicer import MemoryServicer
from server.rpc.thread_pools import ThreadPools
from transport.serving.handler import Method

_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = _DESCRIPTOR.full_name
# Of a message to a control RPC.
_MOST_FIELDS = 4096

_Servicer = Servicer | MemoryServicer | SettingsServicer | RepositoryServicer


class Kind(Enum):
    """How an RPC is handled."""

    QUICK = auto()
    """Gets the parsed message, and answers at once."""
    LOADING = auto()
    """Gets the parsed message, and may take as long as loading a model."""
    INFERENCE = auto()
    """Gets one message as bytes, and the call's context."""
    STREAM = auto()
    """Gets all messages as bytes as they arrive, and the call's context."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC; without a permission it is open to everybody."""

    servicer: type[_Servicer]
    handle: Callable[..., Any]
    permission: Permission | None
    kind: Kind = Kind.QUICK

    @property
    def name(self) -> str:
        """The RPC's name in the protocol."""
        return self.handle.__name__

    @property
    def method(self) -> str:
        """The RPC's path."""
        return f"/{SERVICE}/{self.name}"

    @property
    def request(self) -> Any:
        """Class of the request message."""
        return getattr(pb, _DESCRIPTOR.methods_by_name[self.name].input_type.name)


_INFER, _CONTROL, _MEMORY = Permission.INFER, Permission.CONTROL, Permission.SHARED_MEMORY

RPCS = (
    # An orchestrator's probes carry no token. They learn only that the server is up, which a
    # connection shows too.
    Rpc(Servicer, Servicer.ServerLive, None),
    Rpc(Servicer, Servicer.ServerReady, None),
    Rpc(Servicer, Servicer.ServerMetadata, _INFER),
    Rpc(Servicer, Servicer.ModelReady, _INFER),
    Rpc(Servicer, Servicer.ModelMetadata, _INFER),
    Rpc(Servicer, Servicer.ModelConfig, _INFER),
    Rpc(Servicer, Servicer.ModelStatistics, _INFER),
    Rpc(Servicer, Servicer.ModelInfer, _INFER, Kind.INFERENCE),
    Rpc(Servicer, Servicer.ModelStreamInfer, _INFER, Kind.STREAM),
    Rpc(RepositoryServicer, RepositoryServicer.RepositoryIndex, _CONTROL),
    Rpc(RepositoryServicer, RepositoryServicer.RepositoryModelLoad, _CONTROL, Kind.LOADING),
    Rpc(RepositoryServicer, RepositoryServicer.RepositoryModelUnload, _CONTROL, Kind.LOADING),
    Rpc(SettingsServicer, SettingsServicer.TraceSetting, _CONTROL),
    Rpc(SettingsServicer, SettingsServicer.LogSettings, _CONTROL),
    Rpc(MemoryServicer, MemoryServicer.SystemSharedMemoryStatus, _MEMORY),
    Rpc(MemoryServicer, MemoryServicer.SystemSharedMemoryRegister, _MEMORY),
    Rpc(MemoryServicer, MemoryServicer.SystemSharedMemoryUnregister, _MEMORY),
    Rpc(MemoryServicer, MemoryServicer.CudaSharedMemoryStatus, _MEMORY),
    Rpc(MemoryServicer, MemoryServicer.CudaSharedMemoryRegister, _MEMORY),
    Rpc(MemoryServicer, MemoryServicer.CudaSharedMemoryUnregister, _MEMORY),
)


def handlers(
    servicers: Collection[_Servicer], receiver: Receiver, pools: ThreadPools
) -> grpc.GenericRpcHandler:
    """gRPC's handlers of the whole service; `servicers` holds one of each class in the table."""
    servicer_of = {type(servicer): servicer for servicer in servicers}
    table = {
        rpc.name: _handler(rpc, partial(rpc.handle, servicer_of[rpc.servicer]), receiver, pools)
        for rpc in RPCS
    }
    limited = {Kind.INFERENCE: pools.unary, Kind.STREAM: pools.streams}
    in_flight = {rpc.method: limited[rpc.kind] for rpc in RPCS if rpc.kind in limited}
    generic = grpc.method_handlers_generic_handler(SERVICE, table)
    return Admission(generic, in_flight, pools.refusing_threads)


def native_methods(
    servicers: Collection[_Servicer],
    inference: InferenceMethods,
    control: ControlMethods,
    pools: ThreadPools,
    quick_receive_s: float,
) -> dict[str, Method]:
    """The same for the project's own transport, by path.

    `quick_receive_s`: time limit for the message of a call that is answered at once.
    """
    servicer_of = {type(servicer): servicer for servicer in servicers}
    methods: dict[str, Method] = {}
    for rpc in RPCS:
        if rpc.kind is Kind.INFERENCE:
            methods[rpc.method] = inference.unary
        elif rpc.kind is Kind.STREAM:
            methods[rpc.method] = inference.stream
        else:
            handle = _parsed(rpc.request, partial(rpc.handle, servicer_of[rpc.servicer]))
            receive_s = quick_receive_s if rpc.kind is Kind.QUICK else None
            methods[rpc.method] = control.method(handle, _threads(rpc, pools), receive_s)
    return methods


def _handler(
    rpc: Rpc, handle: Callable[..., Any], receiver: Receiver, pools: ThreadPools
) -> grpc.RpcMethodHandler:
    if rpc.kind is Kind.STREAM:
        guarded = _guarded_stream(handle, pools.streams.leave)
        return grpc.stream_stream_rpc_method_handler(on_pool(guarded, pools.stream_threads))
    if rpc.kind is Kind.INFERENCE:
        return receiver.unary(handle, pools.unary_threads, pools.unary.leave)
    return receiver.unary(_parsed(rpc.request, handle), _threads(rpc, pools))


def _threads(rpc: Rpc, pools: ThreadPools) -> ThreadPoolExecutor:
    """The threads of a control RPC."""
    return pools.quick_threads if rpc.kind is Kind.QUICK else pools.loading_threads


def _parsed(request: Any, handle: Callable[[Any], Message]) -> Callable[..., bytes]:
    def behavior(data: bytes, context: object = None) -> bytes:
        check_fields(request.DESCRIPTOR, data, _MOST_FIELDS)
        try:
            message = request.FromString(data)
        except DecodeError:
            raise InvalidMessage(f"malformed {request.DESCRIPTOR.name}") from None
        return handle(message).SerializeToString()

    return behavior


def _guarded_stream(
    behavior: Callable[..., Iterator[bytes]], leave: Callable[[], None]
) -> Callable[..., Iterator[bytes]]:
    def guarded(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            yield from behavior(messages, context)
            return
        except Exception as error:
            failure = error
        finally:
            leave()
        context.abort(*status.of(failure))

    return guarded
