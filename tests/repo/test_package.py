"""Licence, version and types of the package, and the hooks of pre-commit, each from one place."""

import tomllib

import yaml

from tests.repo.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_licence():
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_one_version():
    version = PROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == version
    assert citation["license"] == PROJECT["project"]["license"]
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    titles = [line for line in changes.splitlines() if line.startswith("## ")]
    assert titles[0] == "## Unreleased"
    assert titles[1].startswith(f"## {version} - ")


def test_types_are_published():
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for package in ("icbs", "solvers", "experiments"):
        assert (ROOT / package / "py.typed").is_file()


def test_hooks_are_the_checks_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    entries = {hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]}
    checks = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert {f"{entry} ." if "ruff" in entry else entry for entry in entries} <= set(checks)
    assert len(entries) == 4
