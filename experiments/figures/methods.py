"""Names of the ways to prune that are compared, apart from all that carries them out."""

LOOP, REPAIRED, TUNED = "icbs", "icbs + repair", "icbs + tuning"
FIRST_TUNED = "wanda + tuning"
ONE_SHOT = ("magnitude", "wanda", "gradient", "random", "rows", "sparsegpt", "cbs")
"""Those of `icbs.baselines.oneshot`, whose import takes seconds."""
METHODS = (*ONE_SHOT, LOOP, FIRST_TUNED, TUNED)
"""What `experiments.pruning.comparing` can be asked for; the repair comes with the loop."""
