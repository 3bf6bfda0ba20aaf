"""Names that modules had before: each still imports, warns, and is the module of the new name."""

import subprocess
import sys

import pytest

from solvers.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_old_name_warns_and_is_the_new_module(old):
    # Another process: here the new name may have been imported in either order already.
    code = (
        "import importlib, sys, warnings\n"
        "old, new = sys.argv[1:]\n"
        "importlib.import_module(old.split('.')[0])\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always', DeprecationWarning)\n"
        "    module = importlib.import_module(old)\n"
        "said = [str(w.message) for w in caught]\n"
        "assert f'{old} is now {new}' in said, said\n"
        "assert module is importlib.import_module(new)\n"
        "assert module.__name__ == module.__spec__.name == new, module.__spec__\n"
    )
    subprocess.run([sys.executable, "-c", code, old, MOVED[old]], check=True)


def test_an_unknown_module_stays_unknown():
    with pytest.raises(ModuleNotFoundError, match=r"solvers\.nowhere"):
        import solvers.nowhere  # noqa: F401
