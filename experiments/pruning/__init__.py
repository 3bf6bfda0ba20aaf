"""Whole pruning runs, and their comparison."""
