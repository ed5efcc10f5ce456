"""The gRPC edge: servicers, streams, admission, status codes."""
