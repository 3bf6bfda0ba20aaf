"""README and docs as a reader meets them: short, calm, no dead links, commands that CI finds."""

import re
import subprocess

import pytest

from tests.repo.pages import PAGES, ROOT, blocks, name, prose

README = (ROOT / "README.md").read_text("utf-8")
RUN = (ROOT / ".ci" / "run").read_text("utf-8")
LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]+)\)")
each_page = pytest.mark.parametrize("page", PAGES, ids=name)


def test_readme_is_one_page():
    assert len(README.splitlines()) <= 130


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "licences.md"], ids=name)
def test_nothing_is_shouted(page):
    """Two words of capitals in a row are emphasis, unless one of them is short for something."""
    said = prose(page.read_text("utf-8")).replace("QAOA", "")
    assert re.findall(r"\b[A-Z]{2,} +[A-Z]{2,}\b", said) == []


def anchors(page):
    """Those that GitHub and the site both make of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-") for title in titles}


@each_page
def test_links_and_images_exist(page):
    for link in LINK.findall(page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        # These two are made with the site.
        made = target == ROOT / "docs" / "cli.md" or target.parent == ROOT / "docs" / "api"
        assert made or target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_readme_marks_its_two_commands():
    assert re.findall(r"<!-- command: (\w+) -->\n```\n", README) == ["demo", "test"]
    assert README.count("<!-- command:") == 2


def marked(mark, text, folder):
    """What CI takes from a README."""
    (folder / "README.md").write_text(text, "utf-8")
    (function,) = re.findall(r"^marked\(\) \{\n.*?^\}$", RUN, re.MULTILINE | re.DOTALL)
    command = ["bash", "-euc", f"{function}\nmarked {mark}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_ci_runs_the_marked_test_command(tmp_path):
    assert 'marked test >"$work/test"' in RUN
    assert 'bash -euo pipefail "$work/test"' in RUN
    command = marked("test", README, tmp_path)
    assert command in blocks(README)
    assert command.count("\n") == 1
    assert command.endswith("pytest\n")
    assert marked("demo", README, tmp_path).endswith("icbs demo\n")


def test_ci_finds_a_command_wherever_its_block_stands(tmp_path):
    text = "```\nfirst\n```\n<!-- command: test -->\n```\none\ntwo\n```\n```\nlast\n```\n"
    assert marked("test", text, tmp_path) == "one\ntwo\n"
    assert marked("demo", text, tmp_path) == ""


def test_ci_runs_the_examples_and_builds_the_site():
    assert len(list((ROOT / "examples").glob("*.py"))) == 2
    assert "for example in examples/*.py" in RUN
    assert "mkdocs build --strict" in RUN
    assert len(blocks(README, "python")) == 2
    assert "/^```python$/" in RUN
