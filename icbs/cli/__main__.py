"""``python -m icbs.cli``."""

from icbs.cli import main

main()
