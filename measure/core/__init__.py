"""What every instrument stands on: records, statistics, formats, environment, local servers."""
