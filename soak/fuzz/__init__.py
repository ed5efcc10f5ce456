"""Random and damaged input: messages, calls, frames, files, sequences of calls."""
