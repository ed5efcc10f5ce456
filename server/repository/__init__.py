"""Models on disk and their versions: found, tried, loaded, replaced."""
