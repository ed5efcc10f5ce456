"""MLCommons LoadGen as the load generator."""
