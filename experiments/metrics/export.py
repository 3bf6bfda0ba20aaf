"""The runs of a store as a file for other programs."""

from __future__ import annotations

from pathlib import Path

from experiments.errors import StoreError
from experiments.metrics.references import load


def export(path: str | Path, out: str | Path) -> Path:
    """Writes the runs as ``.csv`` or ``.parquet``, by the suffix of `out`.

    Raises:
        StoreError: another suffix, an empty store, a file that cannot be written.
    """
    out = Path(out)
    if out.suffix not in (".csv", ".parquet"):
        raise StoreError(f"export to {out.name!r}; end the name in .csv or .parquet")
    frame = load(path)
    try:
        if out.suffix == ".csv":
            frame.to_csv(out, index=False)
        else:
            frame.to_parquet(out, index=False)
    except ImportError as error:
        raise StoreError("Parquet needs pyarrow: pip install 'icbs-bench[parquet]'") from error
    except OSError as error:
        raise StoreError(f"export {out} cannot be written: {error.strerror}") from error
    return out
