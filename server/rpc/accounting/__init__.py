"""Requests and calls that have ended: each is counted once, and handed to observers."""
