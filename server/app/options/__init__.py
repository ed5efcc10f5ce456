"""Options of the server: how they are declared and read, and those of sessions."""
