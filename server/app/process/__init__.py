"""The process itself: its signals, its standard streams, its end."""
