"""Servers that are stopped, and killed, under load."""
