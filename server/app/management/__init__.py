"""The management port: metrics, health and descriptions of models over HTTP, read only."""
