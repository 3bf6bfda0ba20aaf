"""Exact simulation of QAOA in the subspace of a fixed number of ones."""
