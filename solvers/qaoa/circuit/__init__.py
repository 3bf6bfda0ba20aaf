"""Circuits as lists of gates: ansatz, mixers, Dicke states."""
