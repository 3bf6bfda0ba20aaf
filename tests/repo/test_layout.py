"""Test modules stand alone: what two of them need lies in a module of its own."""

import ast

import pytest

from tests.repo.pages import ROOT

TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imported(text):
    """Every module that `text` imports, names imported from a package included."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def borrowed(text):
    """Test modules and fixture files among what `text` imports."""
    for module in imported(text):
        parts = module.split(".")
        if parts[0] == "tests" and any(p.startswith("test_") or p == "conftest" for p in parts):
            yield module


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_no_module_imports_from_a_test_module(path):
    found = sorted(set(borrowed(path.read_text(encoding="utf-8"))))
    assert not found, f"move it to factories.py, strategies.py or conftest.py: {found}"


@pytest.mark.parametrize(
    "line",
    [
        "from tests.solvers.test_search import drawn",
        "from tests.solvers import test_search as other",
        "import tests.paid.conftest",
        "def f():\n    from tests.icbs.test_loop import OPTIONS",
    ],
)
def test_every_way_to_borrow_is_seen(line):
    assert list(borrowed(line))
    assert not list(borrowed("from tests.solvers.factories import drawn\nimport numpy.testing"))
