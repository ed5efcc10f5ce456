"""One loaded version of a model: its configuration checked against its graph."""
