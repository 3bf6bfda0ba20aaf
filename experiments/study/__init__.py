"""What a study file means: cells, sources of its instances, budgets."""
