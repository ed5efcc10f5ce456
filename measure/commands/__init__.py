"""The commands of the client: options in, results out."""
