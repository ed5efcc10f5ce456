"""The linear argmax model: reference, weights, export, verification."""
