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


def enable(server: grpc.Server, services: Iterable[str]) -> None:
    """Add the reflection service to a server; it lists `services` by their full names."""
    reflection.enable_server_reflection(services, server, _pool(_FILES))


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
