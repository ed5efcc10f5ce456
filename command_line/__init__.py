"""The parts that every command line shares: arguments, paths, signals, the terminal."""

import atexit
import gc

# At its end the interpreter searches all objects for cycles, several times over: a quarter of a
# second of a process that has imported ONNX Runtime and grpcio.
atexit.register(gc.freeze)
