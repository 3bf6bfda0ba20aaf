"""From records to numbers: gaps, times to targets, rankings, intervals."""
