"""Long runs that test the promises of the service, and count failures."""
