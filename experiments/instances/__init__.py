"""From a study's sources to instances in its store."""
