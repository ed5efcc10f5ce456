"""Side-by-side benchmarks against physical limits and other servers; no part of the tests."""
