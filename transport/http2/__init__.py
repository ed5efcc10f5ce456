"""HTTP/2: frames, header blocks, streams and windows of one connection, either side."""
