"""Calls other than inference: status and metadata of a server and of a model."""

import contextlib
from collections.abc import Iterator
from typing import Any

from client.connection.calls import Connection
from client.errors import DeadlineExceeded, RequestFailed, Unavailable
from client.shared_memory import SharedArray
from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb


class ControlClient:
    """The calls other than inference, for one model.

    Of several servers, the next in turn answers.
    """

    def __init__(
        self, connection: Connection, model: str, version: str, deadline_s: float | None
    ) -> None:
        self.model = model
        self.version = version
        self._connection = connection
        self._deadline_s = deadline_s

    def live(self) -> bool:
        """Whether the server process answers."""
        request, response = pb.ServerLiveRequest(), pb.ServerLiveResponse
        return self._connection.control("ServerLive", request, response, self._deadline_s).live

    def ready(self) -> bool:
        """Whether the model accepts requests."""
        request = pb.ModelReadyRequest(name=self.model, version=self.version)
        try:
            answer = self._connection.control(
                "ModelReady", request, pb.ModelReadyResponse, self._deadline_s
            )
        except RequestFailed as error:
            if error.code in ("NOT_FOUND", "UNAVAILABLE"):
                return False
            raise
        return answer.ready

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """Name, version and extensions of the server."""
        return self._connection.control(
            "ServerMetadata",
            pb.ServerMetadataRequest(),
            pb.ServerMetadataResponse,
            self._deadline_s,
        )

    def metadata(self) -> pb.ModelMetadataResponse:
        """Names, datatypes and shapes of the model's inputs and outputs."""
        request = pb.ModelMetadataRequest(name=self.model, version=self.version)
        return self._connection.control(
            "ModelMetadata", request, pb.ModelMetadataResponse, self._deadline_s
        )

    def config(self) -> config_pb.ModelConfig:
        """Configuration of the model."""
        request = pb.ModelConfigRequest(name=self.model, version=self.version)
        return self._connection.control(
            "ModelConfig", request, pb.ModelConfigResponse, self._deadline_s
        ).config

    def told(self, name: str) -> str:
        """A parameter of the model's configuration; empty if the server has none of that name."""
        try:
            return self.config().parameters[name].string_value
        except RequestFailed as error:
            # The Open Inference Protocol itself has no ModelConfig.
            if error.code == "UNIMPLEMENTED":
                return ""
            raise

    def statistics(self) -> pb.ModelStatistics:
        """Statistics of the model since it was loaded."""
        request = pb.ModelStatisticsRequest(name=self.model, version=self.version)
        answer = self._connection.control(
            "ModelStatistics", request, pb.ModelStatisticsResponse, self._deadline_s
        )
        # Without a version the answer has all of them; the highest is the one that serves.
        return max(answer.model_stats, key=lambda each: int(each.version))

    @contextlib.contextmanager
    def _registered(self, shape: tuple[int, ...], dtype: Any) -> Iterator[SharedArray]:
        """An array in shared memory that is registered with the server until the block ends."""
        with contextlib.ExitStack() as stack:
            try:
                array = stack.enter_context(SharedArray(shape, dtype, sealed=True))
                self._register(array)
            except (Unavailable, DeadlineExceeded):
                raise
            except RequestFailed:
                # Not a server of this project, or one that sees other processes.
                stack.close()
                array = stack.enter_context(SharedArray(shape, dtype))
                self._register(array)
            try:
                yield array
            finally:
                if not self._connection.closed:
                    self._unregister(array)

    def _unregister(self, array: SharedArray) -> None:
        self._connection.control(
            "SystemSharedMemoryUnregister",
            pb.SystemSharedMemoryUnregisterRequest(name=array.key),
            pb.SystemSharedMemoryUnregisterResponse,
            self._deadline_s,
        )

    def _register(self, array: SharedArray) -> None:
        self._connection.control(
            "SystemSharedMemoryRegister",
            pb.SystemSharedMemoryRegisterRequest(
                name=array.key, key=array.key, byte_size=array.byte_size
            ),
            pb.SystemSharedMemoryRegisterResponse,
            self._deadline_s,
        )
