"""Options, logs, and the composition of the service."""
