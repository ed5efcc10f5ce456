"""Models on disk and their versions: find, try, load, replace."""
