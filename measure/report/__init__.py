"""Pages of results: one HTML file for any set of records, made from them and from nothing else."""
