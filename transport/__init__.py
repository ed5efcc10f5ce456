"""gRPC over HTTP/2, made for large messages: calls, messages, metadata, deadlines; no protos.

The way of a message that comes: `loop` says that a socket can be read, `http2.receiving` cuts
frames, `http2.connection` and `http2.control` say what they mean, `messages` makes the memory of a
message from its prefix, into which `http2.receiving` reads the socket; then its call gets it:
`server_call` and its `handler` in `serving`, `client_call` in `calling`.

The way of a message that goes: any thread hands its buffers to `http2.sending`, which frames them
and writes header and buffers to the socket from that same thread. What the socket does not take is
left to `loop`, or waited for by a thread that may block.
"""
