"""Names that modules had before: each still imports, warns, and is the module of the new name."""

import subprocess
import sys

import pytest


def test_old_names_warn_and_are_the_new_modules():
    # Another process: here the new names may have been imported in either order already.
    code = (
        "import importlib, sys, warnings\n"
        "from solvers.moved import MOVED\n"
        "import experiments, icbs, solvers\n"
        "for old, new in MOVED.items():\n"
        "    with warnings.catch_warnings(record=True) as caught:\n"
        "        warnings.simplefilter('always', DeprecationWarning)\n"
        "        module = importlib.import_module(old)\n"
        "    said = [str(w.message) for w in caught]\n"
        "    assert f'{old} is now {new}' in said, said\n"
        "    assert module is importlib.import_module(new)\n"
        "    assert module.__name__ == module.__spec__.name == new, module.__spec__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_module_stays_unknown():
    with pytest.raises(ModuleNotFoundError, match=r"solvers\.nowhere"):
        import solvers.nowhere  # noqa: F401
