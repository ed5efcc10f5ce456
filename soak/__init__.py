"""Long runs that hold the service to its promises, and count what does not keep them."""
