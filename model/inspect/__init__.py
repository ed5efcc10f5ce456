"""Show the content of any ONNX file: as text, as a page, as a picture of its graph."""
