"""The servers under measurement: which there are, and what each of them did."""
