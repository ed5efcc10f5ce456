"""Decide who waits and what runs together: pure, for the service and for who simulates it."""
