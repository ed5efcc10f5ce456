"""What is measured besides batches in turn: memory, narrow wires, many clients."""
