"""Other servers and load generators, installed in separate environments."""
