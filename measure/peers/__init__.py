"""Other servers and load generators, installed in environments of their own."""
