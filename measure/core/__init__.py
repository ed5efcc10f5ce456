"""Shared by all instruments: records, statistics, formats, environment, local servers."""
