"""Prove that each row of an ONNX graph's outputs depends on only one row of its inputs."""
