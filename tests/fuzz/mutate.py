"""Changes that make a file hostile: to its bytes, to its words, and to the values inside it.

A sample is what one load gets: names and contents of the files of a folder, the first of them the
one that is loaded.
"""

import json
import re
from dataclasses import dataclass

NUMBERS = (
    "0", "-1", "1", "2", "-0", "0.5", "1e308", "-1e308", "1e999", "-1e999", "1e-320", "nan",
    "inf", "-inf", "NaN", "Infinity", "255", "65536", "19999", "20001", "2147483647",
    "2147483648", "-2147483648", "4294967296", "9223372036854775807", "9223372036854775808",
    "-9223372036854775809", "18446744073709551616", "1" + "0" * 30, "1" + "0" * 5000, "1_000",
    "0x10", "\u0661", "1e", "--1", "", "1e5", "100000000", "1e400", "3.0000000000000001",
)  # fmt: skip
NAMES = (
    "", ".", "..", "../outside", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", "~/x",
    "C:\\x", "a/../../b", "a\0b", "a" * 10_000, "\ud800", "\u202e", "__class__", "__proto__",
    "%s%n", "$(touch x)", "`touch x`", "; touch x", "{x}", "file:///etc/passwd", "\n", "linear",
    "*", "?", "[", "builtins.exec", "model.layers.0.self_attn.q_proj.weight",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1, 2, 3, 255, 2**31, 2**40, 2**63, 2**64, -(2**63), 10**30, 0.5,
    -0.5, 1e308, float("nan"), float("inf"), float("-inf"), "", [], {}, [[]], [None], {"": None},
    [1, 2], [2**40, 2**40], [-1, -1], [0, 2**60], [3, -5], "1", "nan", ["a"] * 1000, "x" * 100_000,
)  # fmt: skip
# Stand for text that `json.dumps` cannot write.
_DEEP, _DEEP_TABLES, _LONG = "@deep@", "@deep tables@", "@long@"


@dataclass(frozen=True)
class Link:
    """A symbolic link in place of a file, or a pipe where it leads to ``pipe``."""

    to: str


# Relative to the folder of the sample; `outside` is a file that nobody may change.
LINKS = ("nowhere", ".", "..", "/dev/zero", "/dev/full", "/dev/null", "/proc/self/mem", "pipe",
         "../outside/canary", "../outside", "itself")  # fmt: skip


def pick(rng, things):
    return things[int(rng.integers(len(things)))]


def corrupted(rng, data, others=()):
    """Bytes with one to four random changes."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data) + 1))
        size = int(rng.integers(1, 17))
        match int(rng.integers(9)):
            case 0:  # flipped bit
                if data:
                    data[at % len(data)] ^= 1 << int(rng.integers(8))
            case 1:  # another byte
                if data:
                    data[at % len(data)] = int(rng.integers(256))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + size]
            case 4:
                data[at:at] = rng.bytes(size)
            case 5:  # a piece twice
                data[at:at] = data[at : at + 8 * size]
            case 6:  # a piece of another file
                other = pick(rng, others) if others else bytes(data)
                start = int(rng.integers(len(other) + 1))
                data[at : at + size] = other[start : start + 8 * size]
            case 7:  # no UTF-8, or an end of text
                data[at:at] = pick(rng, [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\x80"])
            case _:  # a count as a machine writes it
                width = pick(rng, [1, 2, 4, 8])
                value = pick(rng, [0, 1, 2**7, 2**15 - 1, 2**31 - 1, 2**32 - 1, 2**62, 2**64 - 1])
                data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(data)


def reworded(rng, text):
    """Text with a number, a word or a line changed, a few times over."""
    for _ in range(int(rng.integers(1, 4))):
        lines = text.split("\n")
        at = int(rng.integers(len(lines)))
        match int(rng.integers(8)):
            case 0 | 1 | 2:
                found = list(re.finditer(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?", text))
                if found:
                    # Half of the time one of the first, where sizes are declared.
                    place = pick(rng, found if rng.integers(2) else found[:6])
                    text = text[: place.start()] + pick(rng, NUMBERS) + text[place.end() :]
                continue
            case 3:
                found = list(re.finditer(r"\S+", text))
                if found:
                    place = pick(rng, found)
                    text = text[: place.start()] + pick(rng, NAMES) + text[place.end() :]
                continue
            case 4:
                lines[at:at] = [lines[at]] * int(rng.integers(1, 4))
            case 5:
                del lines[at]
            case 6:
                other = int(rng.integers(len(lines)))
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                lines[at] = pick(rng, ["\t", " " * 5000, lines[at] * 50, "# " + lines[at], "["])
        text = "\n".join(lines)
    return text


def places(tree, here=()):
    """Paths of all values inside a JSON value."""
    items = ()
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    for key, value in items:
        yield (*here, key)
        yield from places(value, (*here, key))


def edited(rng, tree):
    """A JSON value with one value, key or length inside it changed."""
    tree = json.loads(json.dumps(tree))
    found = list(places(tree))
    if not found or rng.random() < 0.03:
        return pick(rng, [*VALUES, _DEEP, _DEEP_TABLES])
    *way, key = pick(rng, found)
    parent = tree
    for step in way:
        parent = parent[step]
    old = parent[key]
    match int(rng.integers(8)):
        case 0 | 1 | 2:
            parent[key] = pick(rng, VALUES)
        case 3:
            parent[key] = pick(rng, [_DEEP, _DEEP_TABLES, _LONG, *NAMES])
        case 4:
            del parent[key]
        case 5:
            if isinstance(parent, dict):
                parent[pick(rng, NAMES)] = parent.pop(key) if rng.integers(2) else old
            else:
                parent[key:key] = [old] * int(rng.integers(1, 5))
        case 6:
            if isinstance(old, int | float) and not isinstance(old, bool):
                parent[key] = pick(rng, [old + 1, old - 1, -old, 2 * old, old * 10**9, float(old)])
            else:
                parent[key] = [old]
        case _:
            other = tree
            for step in pick(rng, found):
                other = other[step]
            parent[key] = json.loads(json.dumps(other))
    return tree


def json_text(rng, tree):
    """JSON, now and then with a key that stands twice."""
    text = json.dumps(tree)
    deep = int(rng.choice([200, 5_000, 100_000]))
    text = text.replace(f'"{_DEEP}"', "[" * deep + "]" * deep)
    text = text.replace(f'"{_DEEP_TABLES}"', '{"a":' * deep + "1" + "}" * deep)
    text = text.replace(f'"{_LONG}"', "1" + "0" * 5000)
    keys = list(re.finditer(r'"[^"\\]{1,40}": ', text))
    if keys and rng.random() < 0.1:
        key = pick(rng, keys)
        value = json.dumps(pick(rng, VALUES))
        text = f"{text[: key.start()]}{key.group()}{value}, {text[key.start() :]}"
    return text


def linked(rng, sample):
    """One of the files replaced by a link or a pipe."""
    name = pick(rng, list(sample))
    to = pick(rng, LINKS)
    return {**sample, name: Link(name if to == "itself" else to)}
