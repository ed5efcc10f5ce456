"""The service beyond its capacity, and under floods."""
