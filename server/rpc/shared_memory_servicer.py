"""Answer the RPCs that register shared memory."""

from protos import inference_pb2 as pb
from server.batching.shared_memory import Regions
from server.errors import InvalidInput, RegionNotFound


class MemoryServicer:
    """One method per RPC; CUDA regions get the answers of a server without a GPU."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest
    ) -> pb.SystemSharedMemoryStatusResponse:
        """One region, or all of them."""
        response = pb.SystemSharedMemoryStatusResponse()
        for region in self._regions.status(request.name):
            response.regions[region.name].CopyFrom(
                pb.SystemSharedMemoryStatusResponse.RegionStatus(
                    name=region.name,
                    key=region.key,
                    offset=region.offset,
                    byte_size=region.byte_size,
                )
            )
        return response

    def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Register a region under a name."""
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Unregister a region, or all of them."""
        self._regions.unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest
    ) -> pb.CudaSharedMemoryStatusResponse:
        """No region is ever registered."""
        if request.name:
            raise RegionNotFound(f"CUDA region {request.name!r} is not registered")
        return pb.CudaSharedMemoryStatusResponse()

    def CudaSharedMemoryRegister(
        self, request: pb.CudaSharedMemoryRegisterRequest
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Reject: the server shares no GPU memory."""
        raise InvalidInput(
            f"CUDA region {request.name!r} cannot be registered: the server shares no GPU memory"
        )

    def CudaSharedMemoryUnregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Do nothing: no region is registered, which is no error."""
        return pb.CudaSharedMemoryUnregisterResponse()
