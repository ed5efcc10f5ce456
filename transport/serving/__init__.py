"""The server's side: listeners, connections, calls and what answers them."""
