"""Mutated input for every reader: see `tests.fuzz.run`."""
