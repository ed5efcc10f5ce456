"""The limit that a raw socket sets for a stream of examples."""
