"""Which servers, how they are reached and known, what is retried and hedged."""
