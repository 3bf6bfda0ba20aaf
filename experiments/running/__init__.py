"""Runs cells: warm-up, clock, call, score; in process, in worker processes, on a cluster."""
