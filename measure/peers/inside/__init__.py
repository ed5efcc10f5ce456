"""What runs in the other servers' environments; imports nothing of this project."""
