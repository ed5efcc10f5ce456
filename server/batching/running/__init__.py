"""What runs batches, and hands out their results."""
