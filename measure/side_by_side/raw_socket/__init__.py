"""The limit for a stream of examples: a raw socket."""
