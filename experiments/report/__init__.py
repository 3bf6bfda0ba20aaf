"""From a store to one page."""
