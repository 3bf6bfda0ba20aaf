"""What is written down of an instance and of a run, and how a run is scored."""
