"""The command: ``icbs``, ``python -m icbs``."""

from importlib import import_module


def main() -> None:
    """Runs `experiments.cli`, after `icbs` has seen that it is ours and not somebody's folder."""
    # By name: `experiments` is above this package.
    import_module("experiments.cli").main()


if __name__ == "__main__":
    main()
