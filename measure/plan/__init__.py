"""Replicas, batches and network for a rate and a p99, by a validated simulation."""
