"""Serve gRPC reflection: the services and their messages."""

from collections.abc import Iterable

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from protos import inference_pb2

SERVICE = reflection.SERVICE_NAME
_FILES = (inference_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)


def handlers(services: Iterable[str]) -> grpc.GenericRpcHandler:
    """The reflection service; it lists `services` by their full names."""
    servicer = reflection.ReflectionServicer(services, pool=_pool(_FILES))
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE, {"ServerReflectionInfo": method})


def _pool(files: Iterable[FileDescriptor]) -> DescriptorPool:
    """A pool of the files and what they import.

    gRPC's own services are in protobuf's default pool and ours is not, and the servicer looks into
    one. The default pool may also hold Triton's messages, which have the names of ours.
    """
    pool = DescriptorPool()

    def add(file: FileDescriptor) -> None:
        for imported in file.dependencies:
            add(imported)
        # Adding a file again is no error if its content is the same.
        pool.AddSerializedFile(file.serialized_pb)

    for file in files:
        add(file)
    return pool
