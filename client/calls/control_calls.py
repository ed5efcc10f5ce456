"""Calls other than inference: status and metadata of a server and of a model."""

from typing import Any, TypeVar, Unpack

from client.connection.call_options import CallOptions, CallSettings
from client.connection.calls import Connection
from client.errors import DeadlineExceeded, RequestFailed, Unavailable
from client.shared_memory import SharedArray
from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb

Response = TypeVar("Response")


class ControlCalls:
    """The calls other than inference, for one model; `Client` says what its methods do.

    Of several servers, the next in turn answers.
    """

    def __init__(self, connection: Connection, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.connection = connection

    async def check_reachable(self, **options: Unpack[CallOptions]) -> None:
        """See Client."""
        await self.connection.check_reachable(self._settings(options))

    async def wait_until_ready(self, timeout_s: float = 10.0) -> None:
        """See Client."""
        await self.connection.wait_until_ready(timeout_s)

    async def live(self, **options: Unpack[CallOptions]) -> bool:
        """See Client."""
        answer = await self._control(
            "ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse, self._settings(options)
        )
        return answer.live

    async def server_ready(self, **options: Unpack[CallOptions]) -> bool:
        """See Client."""
        answer = await self._control(
            "ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse, self._settings(options)
        )
        return answer.ready

    async def ready(self, **options: Unpack[CallOptions]) -> bool:
        """See Client."""
        request = pb.ModelReadyRequest(name=self.model, version=self.version)
        try:
            answer = await self._control(
                "ModelReady", request, pb.ModelReadyResponse, self._settings(options)
            )
        except RequestFailed as error:
            if error.code in ("NOT_FOUND", "UNAVAILABLE"):
                return False
            raise
        return answer.ready

    async def server_metadata(self, **options: Unpack[CallOptions]) -> pb.ServerMetadataResponse:
        """See Client."""
        return await self._control(
            "ServerMetadata",
            pb.ServerMetadataRequest(),
            pb.ServerMetadataResponse,
            self._settings(options),
        )

    async def metadata(self, **options: Unpack[CallOptions]) -> pb.ModelMetadataResponse:
        """See Client."""
        return await self._read_metadata(self._settings(options))

    async def config(self, **options: Unpack[CallOptions]) -> config_pb.ModelConfig:
        """See Client."""
        return await self._read_config(self._settings(options))

    async def told(self, name: str, **options: Unpack[CallOptions]) -> str:
        """See Client."""
        try:
            return (await self.config(**options)).parameters[name].string_value
        except RequestFailed as error:
            # The Open Inference Protocol itself has no ModelConfig.
            if error.code == "UNIMPLEMENTED":
                return ""
            raise

    async def statistics(self, **options: Unpack[CallOptions]) -> pb.ModelStatistics:
        """See Client."""
        request = pb.ModelStatisticsRequest(name=self.model, version=self.version)
        answer = await self._control(
            "ModelStatistics", request, pb.ModelStatisticsResponse, self._settings(options)
        )
        # Without a version the answer has all of them; the highest is the one that serves.
        return max(answer.model_stats, key=lambda each: int(each.version))

    async def _read_metadata(self, settings: CallSettings) -> pb.ModelMetadataResponse:
        """As `metadata`, within another method."""
        request = pb.ModelMetadataRequest(name=self.model, version=self.version)
        return await self._control("ModelMetadata", request, pb.ModelMetadataResponse, settings)

    async def _read_config(self, settings: CallSettings) -> config_pb.ModelConfig:
        """As `config`, within another method."""
        request = pb.ModelConfigRequest(name=self.model, version=self.version)
        answer = await self._control("ModelConfig", request, pb.ModelConfigResponse, settings)
        return answer.config

    def _settings(self, options: CallOptions) -> CallSettings:
        return self.connection.settings.of_call(options)

    async def _control(
        self, method: str, request: Any, response: type[Response], settings: CallSettings
    ) -> Response:
        return await self.connection.control(method, request, response, settings)

    async def _registered(
        self, shape: tuple[int, ...], dtype: Any, settings: CallSettings
    ) -> SharedArray:
        """An array in shared memory that is registered with the server, to be released."""
        try:
            return await self._register(SharedArray(shape, dtype, sealed=True), settings)
        except (Unavailable, DeadlineExceeded):
            raise
        except RequestFailed:
            # Not a server of this project, or one that sees other processes.
            return await self._register(SharedArray(shape, dtype), settings)

    async def release(self, array: SharedArray, options: CallOptions) -> None:
        """End what `share` began."""
        settings = self._settings(options)
        try:
            if not self.connection.closed:
                await self._control(
                    "SystemSharedMemoryUnregister",
                    pb.SystemSharedMemoryUnregisterRequest(name=array.key),
                    pb.SystemSharedMemoryUnregisterResponse,
                    settings,
                )
        finally:
            array.close()

    async def _register(self, array: SharedArray, settings: CallSettings) -> SharedArray:
        try:
            await self._control(
                "SystemSharedMemoryRegister",
                pb.SystemSharedMemoryRegisterRequest(
                    name=array.key, key=array.key, byte_size=array.byte_size
                ),
                pb.SystemSharedMemoryRegisterResponse,
                settings,
            )
        except BaseException:
            array.close()
            raise
        return array
