"""MLCommons LoadGen as the driver."""
