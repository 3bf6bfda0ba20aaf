"""Every command, module and file that README, docs and results name is there."""

import ast
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from experiments.cli import app
from tests.repo.pages import PAGES, ROOT, blocks, inline, name

TEXTS = [
    *PAGES,
    *(p for p in sorted((ROOT / "results").rglob("*")) if p.suffix in (".csv", ".json", ".txt")),
]
each_text = pytest.mark.parametrize("path", TEXTS, ids=name)
each_page = pytest.mark.parametrize("path", PAGES, ids=name)
PACKAGES = ("solvers", "icbs", "experiments", "tests")
COMMANDS = typer.main.get_command(app)


def module_exists(dotted):
    try:
        return find_spec(dotted) is not None
    except ModuleNotFoundError:
        return False


@each_text
def test_modules_that_are_run_exist(path):
    found = re.findall(r"python -m\s+([\w.]+)", path.read_text("utf-8"))
    assert [module for module in found if not module_exists(module.rstrip("."))] == []


def test_there_are_such_commands():
    text = "\n".join(path.read_text("utf-8") for path in TEXTS)
    assert len(set(re.findall(r"python -m\s+(experiments[\w.]+)", text))) > 10


def defines(module, attribute):
    """Whether a module's source binds a name, or hands it on."""
    source = Path(find_spec(module).origin).read_text("utf-8")
    names = {
        bound
        for node in ast.parse(source).body
        for part in ast.walk(node)
        for bound in (
            getattr(part, "name", None),
            getattr(part, "asname", None),
            getattr(part, "id", None),
            getattr(part, "value", None) if isinstance(part, ast.Constant) else None,
        )
    }
    return attribute in names


def known(dotted):
    """Whether `package.module.name.attribute` leads somewhere; attributes are not looked at."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        if module_exists(module := ".".join(parts[:length])):
            return length == len(parts) or defines(module, parts[length])
    return False


@each_page
def test_names_of_the_packages_lead_somewhere(path):
    pattern = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
    codes = [*inline(path.read_text("utf-8")), *blocks(path.read_text("utf-8"), "python")]
    # `icbs.solvers` is a group of entry points; files have a suffix.
    skipped = re.compile(r"icbs\.solvers$|\.(py|toml|md|sqlite)$")
    found = {dotted for code in codes for dotted in pattern.findall(code)}
    assert {dotted for dotted in found if not skipped.search(dotted) and not known(dotted)} == set()


@each_page
def test_files_of_the_repository_exist(path):
    folders = "icbs|solvers|experiments|tests|docs|results|examples|notebooks|\\.ci"
    pattern = re.compile(rf"^(?:{folders})/[\w./*-]*$")
    for code in inline(path.read_text("utf-8")):
        if pattern.match(code):
            assert list(ROOT.glob(code.rstrip("/"))), code


def calls(path):
    """Calls of `icbs`: whole ones of the blocks, and those in a line, which may leave out parts."""
    text = path.read_text("utf-8")
    if path.suffix != ".md":
        return [], re.findall(r"\bicbs [a-z]+(?: (?:--)?[a-z][a-z-]*)*", text)
    lines = "".join(blocks(text)).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in re.split(r"&&|;", line)]
    whole = [part for part in parts if re.match(r"(\.venv/bin/)?icbs ", part)]
    return whole, [code for code in inline(text) if re.match(r"icbs [a-z]", code)]


def command_of(words):
    """The command that words call, and what is left of them."""
    command = COMMANDS
    while (below := getattr(command, "commands", None)) and words and words[0] in below:
        command, words = below[words[0]], words[1:]
    return command, words


@each_text
def test_calls_of_icbs_are_understood(path):
    whole, parts = calls(path)
    for call in [*whole, *parts]:
        command, words = command_of(shlex.split(call, comments=True)[1:])
        assert not hasattr(command, "commands") or words == [], call
        options = {"--help"}.union(*(one.opts + one.secondary_opts for one in command.params))
        assert {word.split("=")[0] for word in words if word.startswith("-")} <= options, call
    for call in whole:
        command, words = command_of(shlex.split(call, comments=True)[1:])
        # Reads the words as a call does, and goes no further.
        command.make_context("icbs", list(words))


def test_a_call_that_is_wrong_is_noticed():
    assert hasattr(command_of(["store", "chekc"])[0], "commands")
    command, words = command_of(["solve", "--sovler", "greedy"])
    assert not any("--sovler" in one.opts for one in command.params)
    with pytest.raises(Exception, match="sovler"):
        command.make_context("icbs", words)
