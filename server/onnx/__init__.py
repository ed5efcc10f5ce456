"""ONNX Runtime: sessions, execution providers, page-locked memory."""
