"""The wire contract: messages, stubs, tensor codec."""
