"""The pruning loop: moves, gate, records, checkpoints, refit and tuning."""
