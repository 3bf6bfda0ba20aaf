"""Committed measurements behind every performance claim; run them as modules."""
