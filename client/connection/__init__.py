"""Connections to servers: addresses, credentials, retries and hedging."""
