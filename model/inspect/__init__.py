"""Show what any ONNX file holds: as text, as a page, as a picture of its graph."""
