"""Which requests are traced: what clients ask for with a call, and the settings."""
