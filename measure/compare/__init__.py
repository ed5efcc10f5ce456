"""Execution providers side by side: measure, analyse, show."""
