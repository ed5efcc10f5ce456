"""This service beside its limits and other servers, in one interleaved run."""
