"""The `icbs` command, a module a kind of subcommand.

Exit status: 0 done, 1 the work failed (a message on stderr, no traceback), 2 wrong usage.
"""

from icbs.cli.shadows import check_packages

check_packages()

from icbs.cli import models, pruning, solving, studies  # noqa: E402, F401, they add subcommands
from icbs.cli.app import app, main  # noqa: E402

__all__ = ["app", "main"]
