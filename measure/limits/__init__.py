"""The roofs of the machine, and how close results come to them."""
