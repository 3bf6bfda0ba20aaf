"""The `icbs` command, a module a kind of subcommand.

Exit status: 0 done, 1 the work failed (a message on stderr, no traceback), 2 wrong usage, 130
interrupted.
"""

from experiments.cli import exporting, instances, models, pruning, services, solving, studies  # noqa: F401  they add subcommands
from experiments.cli.app import app, main

__all__ = ["app", "main"]
