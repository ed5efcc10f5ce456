"""What is done with each request and call that has ended: the access log, and traces."""
