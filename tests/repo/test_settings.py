"""Every setting of the loop is varied by something that is committed, and the page says by what."""

import re
from dataclasses import fields
from pathlib import Path

from experiments.benchmarks.settings import VARIED
from icbs.settings import Settings

ROOT = Path(__file__).parents[2]
SETTINGS = {field.name: field.default for field in fields(Settings)}


def rows():
    lines = (ROOT / "docs" / "settings.md").read_text("utf-8").splitlines()
    table = [line.strip("|").split("|") for line in lines if line.startswith("| `")]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in table}


def test_every_setting_has_a_line_with_its_default():
    assert list(rows()) == list(SETTINGS)
    for name, (default, *_) in rows().items():
        assert default.strip("`") == str(SETTINGS[name]), name


def test_what_varies_a_setting_names_it():
    for name, (_, _, where) in rows().items():
        places = re.findall(r"`([^`]+)`", where)
        assert places, name
        for place in places:
            text = (ROOT / place).read_text("utf-8")
            given = rf"\b{name} ?=|\"{name}\"|--set {name}="
            assert re.search(given, text), f"{name} is not varied in {place}"


def test_the_benchmark_leaves_no_setting_out():
    named = {name for cases in VARIED.values() for case in cases for name in case}
    assert named | {"seed"} == set(SETTINGS)
    for name, cases in VARIED.items():
        assert cases
        for case in cases:
            given = {"density": 0.1, **case}
            assert Settings(**given) == Settings(**given)
            assert name == "schedule" or name in case or case == {"density": 0.5}
