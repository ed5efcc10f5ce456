"""TLS, tokens and permissions."""
