"""The notebooks run from top to bottom, as a reader would run them."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_all_five_are_there_without_outputs():
    assert [path.stem[0] for path in NOTEBOOKS] == list("12345")
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs")


# Those that import PyTorch are left to the slow tests: starting takes most of their time.
SLOW = ("1-compare-solvers", "3-prune-a-model", "5-bring-your-own-model")


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in SLOW else (), id=path.stem)
     for path in NOTEBOOKS],
)  # fmt: skip
# jupyter's packages warn of each other
@pytest.mark.filterwarnings("default")
def test_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
    said = [out["text"] for out in outputs if out.get("name") == "stderr"]
    # tqdm, of transformers, misses ipywidgets; the notebooks show no bars.
    assert [text for text in said if "IProgress not found" not in text] == []
    assert any("image/png" in out.get("data", {}) for out in outputs)
    if keep := os.environ.get("KEEP_NOTEBOOKS"):
        nbformat.write(book, Path(keep) / path.name)
