"""Commands that call a server and need the base install only."""
