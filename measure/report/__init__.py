"""Pages of results: one HTML file for any set of records, made from the records alone."""
