"""Code for the other servers' environments; imports nothing from this project."""
