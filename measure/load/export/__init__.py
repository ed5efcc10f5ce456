"""Write a line for every request of a load, as CSV or Parquet."""
