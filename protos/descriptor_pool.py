"""Hold the descriptors of the wire contract apart from those of the rest of the process.

The names in the .proto files are the protocol's own, so Triton's client registers messages of the
same names, and one DescriptorPool takes each name once. The generated modules therefore use this
pool instead of protobuf's default one.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
