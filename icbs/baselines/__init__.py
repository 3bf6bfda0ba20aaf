"""One-shot pruning to compare the loop with."""
