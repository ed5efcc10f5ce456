"""This service, its limits and other servers, measured in one interleaved run."""
