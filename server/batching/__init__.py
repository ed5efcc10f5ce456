"""The queue: requests, fair order, batches, and the memory they take."""
