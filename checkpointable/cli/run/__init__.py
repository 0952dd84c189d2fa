"""The command `run`, and what it is made of."""
