"""Compares two solvers on blocks of a model: a greedy sort, and D-Wave's annealer behind a penalty.

    python examples/compare_solvers.py

Nothing is downloaded: the model, `garment-mlp`, and its images come with the package.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from experiments import Study, load_runs, run
from icbs import export_blocks, load_model
from icbs.data.loading import load_samples


def main() -> None:
    """Cuts two blocks, runs the study, prints a table."""
    model = load_model("garment-mlp")
    samples = load_samples(model, count=64)
    blocks = export_blocks(model, samples, layers="*", sizes=[64], fishers=["position"])
    study = Study("compare", blocks, solvers=["greedy", "neal"], budgets=[0.1], seeds=[0, 1])
    with TemporaryDirectory() as folder:
        store = Path(folder) / "runs.sqlite"
        run(study, store, progress=False)
        runs = load_runs(store)
    # A gap of 0 is the best energy known, 1 that of the mask the model has now.
    print(runs.groupby("solver")[["gap", "raw_feasible", "wall"]].median())


if __name__ == "__main__":
    main()
