"""The highest rate within a latency bound, and the server options for it."""
