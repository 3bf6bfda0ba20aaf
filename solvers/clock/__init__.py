"""Time limits that hold: deadlines, calls that cannot look at a clock, compiling before it runs."""
