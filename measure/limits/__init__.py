"""The roofs of the machine, and how near to them results come."""
