"""How results look: numbers, colours, pictures."""
