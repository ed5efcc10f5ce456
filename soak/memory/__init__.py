"""Attacks on a server's memory, all at once, while others are served."""
