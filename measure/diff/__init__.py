"""Say whether a newer result is worse than an older one of the same kind."""
