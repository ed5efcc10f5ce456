"""Answer the RPCs of GRPCInferenceService.

Handlers get the message as raw bytes and parse it in the worker thread: a malformed message becomes
INVALID_ARGUMENT, tensors are never copied by protobuf, and no parsing holds up gRPC's polling.
"""

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from protos import inference_pb2 as pb
from protos.codec import decode_request, encode_response
from protos.errors import InvalidMessage
from server.batching.request import Caller
from server.errors import InvalidInput, ModelUnavailable, ServerStopping
from server.repository.repository import Repository
from server.rpc import descriptions, status
from server.rpc.admission import Admission, Receiver, on_pool
from server.rpc.idle_trim import IdleTrim
from server.rpc.inference import Inference
from server.rpc.repository_servicer import RepositoryServicer
from server.rpc.settings_servicer import SettingsServicer
from server.rpc.shared_memory_servicer import MemoryServicer
from server.rpc.stream import InferStream
from server.rpc.thread_pools import ThreadPools

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
SERVER_NAME = "argmax-serving"
_FOREVER_S = 10 * 365 * 86400
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
    "system_shared_memory",
)


_MEMORY_REQUESTS: tuple[Any, ...] = (
    pb.SystemSharedMemoryStatusRequest,
    pb.SystemSharedMemoryRegisterRequest,
    pb.SystemSharedMemoryUnregisterRequest,
    pb.CudaSharedMemoryStatusRequest,
    pb.CudaSharedMemoryRegisterRequest,
    pb.CudaSharedMemoryUnregisterRequest,
)
_SETTINGS_REQUESTS: tuple[Any, ...] = (pb.TraceSettingRequest, pb.LogSettingsRequest)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits of a stream: bytes read ahead, seconds without a message."""

    read_ahead_bytes: int
    idle_s: float


class Servicer:
    """One method per RPC; each decodes, submits and encodes."""

    def __init__(
        self,
        repository: Repository,
        inference: Inference,
        streams: StreamLimits,
        idle_trim: IdleTrim,
        parameters: Mapping[str, str],
    ) -> None:
        """`parameters` appear in every model's configuration."""
        self._repository = repository
        self._inference = inference
        self._stream_limits = streams
        self._parameters = parameters
        self._idle_trim = idle_trim
        self._streams: weakref.WeakSet[InferStream] = weakref.WeakSet()
        self._streams_lock = threading.Lock()

    def ServerLive(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """True: the process answers."""
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Whether the server accepts requests."""
        return pb.ServerReadyResponse(ready=self._repository.ready)

    def ModelReady(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Whether a version serves; NOT_FOUND for an unknown one."""
        try:
            self._repository.get(request.name, request.version)
        except ModelUnavailable:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    def ServerMetadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Name, version, and the supported extensions of the protocol."""
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=version("argmax-serving"), extensions=EXTENSIONS
        )

    def ModelMetadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Inputs and outputs of a version."""
        model = self._repository.get(request.name, request.version)
        versions = [each.version for each in self._repository.models(request.name)]
        return descriptions.metadata(model, versions)

    def ModelConfig(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Configuration of a version."""
        model = self._repository.get(request.name, request.version)
        return pb.ModelConfigResponse(config=descriptions.config(model, self._parameters))

    def ModelStatistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Statistics of one version, of all versions of a model, or of all models."""
        if request.version and not request.name:
            raise InvalidInput("got a version without a model name, expected both")
        models = self._repository.models(request.name, request.version)
        return pb.ModelStatisticsResponse(model_stats=map(descriptions.statistics, models))

    def ModelInfer(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer one request."""
        arrived_ns = time.monotonic_ns()
        message = decode_request(data)
        caller = Caller(context.peer(), _deadline_ns(context, arrived_ns), context.add_callback)
        pending = self._inference.begin(message, arrived_ns, caller)
        if not context.add_callback(pending.cancel):
            pending.cancel()
        return self._inference.finish(pending, encode_response)

    def ModelStreamInfer(
        self, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Answer each message of a stream in order."""
        stream = InferStream(
            messages,
            self._inference,
            client=context.peer(),
            deadline_ns=_deadline_ns(context, time.monotonic_ns()),
            read_ahead_bytes=self._stream_limits.read_ahead_bytes,
            idle_s=self._stream_limits.idle_s,
            errors_end_it=("triton_grpc_error", "true") in context.invocation_metadata(),
        )
        with self._streams_lock:
            self._streams.add(stream)
        try:
            if not self._repository.ready:
                # The stream may have opened after `stop_streams` ran.
                raise ServerStopping("the server is stopping")
            if context.add_callback(stream.abandon):
                read_ahead_bytes = self._stream_limits.read_ahead_bytes
                with self._idle_trim.around(read_ahead_bytes):
                    yield from stream.answers()
        finally:
            with self._streams_lock:
                self._streams.discard(stream)

    def stop_streams(self) -> None:
        """End every stream after its received messages are answered."""
        with self._streams_lock:
            streams = list(self._streams)
        for stream in streams:
            stream.stop()


def handlers(
    servicer: Servicer,
    memory: MemoryServicer,
    settings: SettingsServicer,
    repository: RepositoryServicer,
    receiver: Receiver,
    pools: ThreadPools,
) -> grpc.GenericRpcHandler:
    """gRPC's handlers of the whole service."""
    control: dict[str, tuple[Any, Callable[[Any], Message]]] = {
        "ServerLive": (pb.ServerLiveRequest, servicer.ServerLive),
        "ServerReady": (pb.ServerReadyRequest, servicer.ServerReady),
        "ModelReady": (pb.ModelReadyRequest, servicer.ModelReady),
        "ServerMetadata": (pb.ServerMetadataRequest, servicer.ServerMetadata),
        "ModelMetadata": (pb.ModelMetadataRequest, servicer.ModelMetadata),
        "ModelConfig": (pb.ModelConfigRequest, servicer.ModelConfig),
        "ModelStatistics": (pb.ModelStatisticsRequest, servicer.ModelStatistics),
        "RepositoryIndex": (pb.RepositoryIndexRequest, repository.RepositoryIndex),
    }
    for group, kinds in ((memory, _MEMORY_REQUESTS), (settings, _SETTINGS_REQUESTS)):
        for kind in kinds:
            name = kind.DESCRIPTOR.name.removesuffix("Request")
            control[name] = (kind, getattr(group, name))
    slow: dict[str, tuple[Any, Callable[[Any], Message]]] = {
        "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, repository.RepositoryModelLoad),
        "RepositoryModelUnload": (
            pb.RepositoryModelUnloadRequest,
            repository.RepositoryModelUnload,
        ),
    }
    table = {
        name: receiver.unary(_parsed(kind, handle), pool)
        for pool, rpcs in (
            (pools.quick_threads, control),
            (pools.loading_threads, slow),
        )
        for name, (kind, handle) in rpcs.items()
    }
    table["ModelInfer"] = receiver.unary(
        servicer.ModelInfer, pools.unary_threads, pools.unary.leave
    )
    table["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        on_pool(
            _guarded_stream(servicer.ModelStreamInfer, pools.streams.leave),
            pools.stream_threads,
        )
    )
    in_flight = {
        f"/{SERVICE}/ModelInfer": pools.unary,
        f"/{SERVICE}/ModelStreamInfer": pools.streams,
    }
    generic = grpc.method_handlers_generic_handler(SERVICE, table)
    return Admission(generic, in_flight, pools.refusing_threads)


def _deadline_ns(context: grpc.ServicerContext, now_ns: int) -> int | None:
    """The client's deadline on the monotonic clock."""
    left_s = context.time_remaining()
    # Without a deadline gRPC reports the time until about the year 10000.
    return None if left_s is None or left_s > _FOREVER_S else now_ns + int(left_s * 1e9)


def _parsed(kind: Any, handle: Callable[[Any], Message]) -> Callable[..., bytes]:
    def behavior(data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            request = kind.FromString(data)
        except DecodeError:
            raise InvalidMessage(f"malformed {kind.DESCRIPTOR.name}") from None
        return handle(request).SerializeToString()

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
