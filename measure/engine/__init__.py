"""The load engine: when requests are due, who sends them, how latency is counted."""
