"""``python -m icbs``."""

from icbs.cli import main

main()
