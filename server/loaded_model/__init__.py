"""One loaded version of a model: its configuration held against its graph."""
