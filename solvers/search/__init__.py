"""Swap search that keeps the number of ones: greedy, descent, annealing, tabu, populations."""
