"""Every dependency has a lower bound and a line in the table of licences."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def direct():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for texts in lists for text in texts]


def test_every_dependency_has_a_lower_bound():
    assert len(direct()) > 30
    loose = [one.name for one in direct() if not any(s.operator == ">=" for s in one.specifier)]
    assert not loose


def test_a_package_that_comes_twice_has_one_bound():
    bounds = {}
    for one in direct():
        bounds.setdefault(one.name, set()).add(str(one.specifier))
    assert {name: texts for name, texts in bounds.items() if len(texts) > 1} == {}


def test_every_dependency_is_in_the_table_of_licences():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "licences.md").read_text("utf-8").splitlines()
        if line.startswith("| ")
    ]
    listed = {row[0] for row in rows[1:] if row[2]}
    assert listed == {canonicalize_name(one.name) for one in direct()}
    assert len(rows) > 2 * len(listed)
    assert all(len(row) == 5 and row[3] for row in rows)
