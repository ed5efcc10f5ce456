"""Servers that are ended, and killed, under load."""
