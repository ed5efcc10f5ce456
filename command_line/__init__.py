"""The parts that every command line shares: arguments, paths, signals, the terminal."""
