"""Latency and throughput over batch sizes."""
