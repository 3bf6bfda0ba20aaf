"""The process that loads: ``python -m tests.fuzz.worker FORMAT SEED START STOP BASE``.

Draws sample after sample, loads it under guard, and writes a line of JSON about each, the first
time after it has said that it is ready. A sample is a
function of format, seed and number alone.
"""

import faulthandler
import json
import os
import sys
import zlib
from pathlib import Path

import numpy as np


def generator(name, seed, number):
    """The random numbers of one sample."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), number])


def main(name, seed, start, stop, base):
    """Loads samples `start` to `stop` and tells of each on the standard output."""
    told = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    faulthandler.enable()
    sys.dont_write_bytecode = True

    from tests.fuzz.judge import Judge, limited_memory
    from tests.fuzz.targets import target

    chosen = target(name)
    judge = Judge(base)
    with judge.settled():
        seeds = chosen.seeds()
        for sample in seeds:
            for _ in range(2):  # everything that is imported or compiled late
                verdict = judge.load(chosen, sample)
        if verdict.outcome != "loaded":
            raise SystemExit(f"a sample that is whole does not load: {verdict}")
        told.write("ready\n")
        with limited_memory():
            for number in range(start, stop):
                sample, kind = chosen.sample(generator(name, seed, number), seeds)
                verdict = judge.load(chosen, sample)
                told.write(json.dumps({"number": number, "kind": kind, **vars(verdict)}) + "\n")


if __name__ == "__main__":
    name, seed, start, stop, base = sys.argv[1:]
    main(name, int(seed), int(start), int(stop), Path(base))
