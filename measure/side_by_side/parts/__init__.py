"""Measurements beside the batch rounds: memory, narrow wire dtypes, many clients."""
