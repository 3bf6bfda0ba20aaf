"""Real instances that come with the package: no model and no download.

`experiments.instances.library.reading` finds and builds them, `check.py` beside it is a program of
its own that scores solutions with the standard library and NumPy alone. They are made by
`experiments.scripts.library`.
"""
