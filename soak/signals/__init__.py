"""Servers that are stopped or killed under load."""
