"""Prove of an ONNX graph that each row of its outputs depends on one row of its inputs alone."""
