"""Files of block problems."""

import hashlib
import json
import struct

import numpy as np

from solvers import CardinalityProblem, export, load, save
from solvers.errors import FormatError, SolverError
from tests.fuzz.mutate import corrupted, edited, json_text, pick, reworded
from tests.fuzz.safefile import inner_json, joined, rewritten, split
from tests.fuzz.targets import Target, written

SUFFIXES = {
    "container": ".block.safetensors",
    "bqm": ".bqm",
    "lp": ".lp",
    "ubqp": ".ubqp",
    "sparse": ".sparse",
    "qubo": ".qubo",
    "qplib": ".qplib",
}

QPLIB = """fuzz
QBL # binary, one linear constraint
{sense}
4 # variables
1 # constraints
3 # quadratic terms
1 1 2.0
2 1 -1.5
4 3 0.25
0.0 # default of b
2
1 1.0
3 -2.0
0.5 # constant
4
1 1 1
1 2 1
1 3 1
1 4 1
1e30 # infinity
2.0
0
2.0
0
0.0
0
0.0
0
1
2 name
0
"""
LP = """\\ as a person writes it
Maximize
 obj: 2 y1 - 3.5y2 + [ 2 y1 * y2 - 4 y3^2 ] / 2 + 7
Subject To
 card: y1 + y2 + y3 + y4 = 2
 row: 2 y4 <= 1
Bounds
 0 <= y1 <= 1
 y3 <= 1
Binary
 y1 y2 y4
General
 y3
End
"""
MATRIX = """{0} as others write it
{0} offset : -1.5
{0} scale : 2.0
{1}
"""
UNCONSTRAINED = """free
QBN
minimize
3
2
2 1 1.0
3 3 4.0
0.0
1
2 1.0
0.0
1e30
"""


def _problems():
    rng = np.random.default_rng(0)
    gram = rng.normal(size=(4, 4))
    yield CardinalityProblem(
        linear=rng.normal(size=6),
        cardinality=2,
        factor=rng.normal(size=(3, 6)),
        offset=0.25,
        scale=2.0,
        initial=np.arange(6) < 2,
        indices=np.arange(6) * 7,
        meta={"layer": "a.b", "fisher": "sequence", "density": 0.5, "step": 3},
    )
    yield CardinalityProblem(
        linear=rng.normal(size=4),
        cardinality=3,
        quadratic=gram + gram.T,
        labels=("y 1", "y_2", "z", "x0"),
    )
    yield CardinalityProblem(linear=np.zeros(1), cardinality=1, factor=np.ones((1, 1)))


def _seeds(name):
    if name == "qplib":
        texts = [QPLIB.format(sense="minimize"), QPLIB.format(sense="maximize"), UNCONSTRAINED]
        return [{"a.qplib": text.encode()} for text in texts]
    file = f"a{SUFFIXES[name]}"
    texts = {
        "lp": [LP],
        "ubqp": [MATRIX.format("#", " 1 \n 3 2\n 1 1 5 \n 3 2 -6 ")],
        "sparse": [MATRIX.format("#", "3 2\n1 1 5\n2 3 -6")],
        "qubo": [MATRIX.format("c", "p qubo 0 3 1 1\n1 1 5\n0 2 -6")],
    }
    ours = [written(file, lambda path, p=problem: export(p, path)) for problem in _problems()]
    return [{file: data} for data in [*ours, *(text.encode() for text in texts.get(name, []))]]


def _load(path, out):
    try:
        problem = load(path)
    except FormatError as error:
        if "pass cardinality" not in str(error):
            raise
        problem = load(path, cardinality=1)
    again = load(save(problem, out / "again.block.safetensors"))
    assert again.content_hash == problem.content_hash, "another problem after a save and a load"
    assert again.labels == problem.labels, "other names after a save and a load"
    assert np.isfinite(problem.linear).all() and 0 <= problem.cardinality <= problem.n


def _text(rng, seeds):
    ((name, data),) = pick(rng, seeds).items()
    text = reworded(rng, data.decode())
    if rng.random() < 0.05:
        text = text * int(rng.integers(2, 200))
    return {name: text.encode("utf-8", "surrogatepass")}


def _inner_container(rng, metadata):
    metadata = inner_json(rng, metadata, ("icbs", "meta"))
    if rng.random() < 0.7:
        # A hostile writer gets the hash of the metadata right.
        try:
            icbs = json.loads(metadata["icbs"])
            icbs["meta_hash"] = hashlib.sha256(metadata["meta"].encode()).hexdigest()
            metadata["icbs"] = json.dumps(icbs)
        except (KeyError, TypeError, ValueError, RecursionError):
            pass
    return metadata


def _container(rng, seeds):
    ((name, data),) = pick(rng, seeds).items()
    if rng.random() < 0.1:
        return {name: _coherent(rng, data)}
    return {name: rewritten(rng, data, _inner_container)}


def _coherent(rng, data):
    """Another n everywhere in the header, with the tensors emptied or left as they are."""
    header, body = split(data)
    n = int(pick(rng, [0, 1, 2**20, 2**31, 2**40, 2**62, -1]))
    icbs = json.loads(header["__metadata__"]["icbs"])
    header["__metadata__"]["icbs"] = json.dumps({**icbs, "n": n})
    for name, tensor in header.items():
        if name != "__metadata__":
            tensor["shape"] = [*([0] * (len(tensor["shape"]) - 1)), n]
            if rng.integers(2):
                tensor["data_offsets"] = [0, 0]
    return joined(json.dumps(header), body if rng.integers(2) else b"")


def _bqm(rng, seeds):
    """Header and body of dimod's format, the header's length right."""
    ((name, data),) = pick(rng, seeds).items()
    prefix, rest = data[:10], data[10:]
    (size,) = struct.unpack("<I", rest[:4])
    header, body = json.loads(rest[4 : 4 + size]), rest[4 + size :]
    if rng.random() < 0.7:
        if rng.random() < 0.4:
            header["shape"] = [int(pick(rng, [0, 1, 6, 15, 2**20, 2**31, 2**40, -1, 7]))
                               for _ in range(2)]  # fmt: skip
        elif rng.random() < 0.3:
            key = pick(rng, ["dtype", "itype", "ntype", "vartype", "type"])
            header[key] = pick(rng, ["float32", "O", "object", "U8", "V1000000000", "int8", "f16",
                                     "complex128", "S0", "SPIN", "INTEGER", "M8[s]", "i1,i8",
                                     "int64", "uint32", "uint64", 5, None])  # fmt: skip
        else:
            header = edited(rng, header)
    text = json_text(rng, header)
    if rng.random() < 0.6:
        body = bytearray(body)
        for _ in range(int(rng.integers(1, 6))):
            # Where offset, degrees and variable numbers are: whole words, not single bits.
            at = 4 * int(rng.integers(max(1, len(body) // 4)))
            value = int(pick(rng, [0, 1, 5, 6, 2**31 - 1, 2**32 - 1, 2**20, 0x7FF00000]))
            body[at : at + 4] = struct.pack("<I", value)
    elif rng.random() < 0.3:
        body = corrupted(rng, body)
    raw = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        prefix = prefix[:8] + bytes(rng.integers(0, 4, 2).tolist())
    return {name: prefix + struct.pack("<I", len(raw)) + raw + bytes(body)}


_MUTATE = {"container": _container, "bqm": _bqm}
TARGETS = {
    name: Target(
        name=name,
        seeds=lambda name=name: _seeds(name),
        mutate=_MUTATE.get(name, _text),
        load=_load,
        # `solvers.load` documents OSError for a file that is not there or cannot be read.
        errors=(SolverError, OSError),
    )
    for name in SUFFIXES
}
