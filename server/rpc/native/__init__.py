"""Inference as message handlers of the project's own transport: no thread waits for a call."""
