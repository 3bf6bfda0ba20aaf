"""The pages that people read, as the tests of this folder look at them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(page):
    return str(page.relative_to(ROOT))


def blocks(text, language=""):
    """The fenced blocks of a language; of none if it is empty."""
    return [body for kind, body in _FENCE.findall(text) if kind == language]


def inline(text):
    """What stands between single backticks outside of blocks, line ends taken for spaces."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", _FENCE.sub("", text))]


def prose(text):
    """The page without code."""
    return re.sub(r"`[^`]+`|^ {4}.*$", "", _FENCE.sub("", text), flags=re.MULTILINE)
