"""Closed and open loops of requests: pace, send, count, judge."""
