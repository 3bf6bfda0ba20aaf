"""What the command says about itself: every help, every example in it, the version."""

import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

import icbs
from experiments.cli import app
from experiments.cli.app import Command

ROOT = Path(__file__).parents[2]
GROUP = typer.main.get_command(app)


def walk(group, names=()):
    """Every subcommand with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from walk(command, (*names, name))
        else:
            yield (*names, name), command


COMMANDS = dict(walk(GROUP))


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "icbs", *arguments], capture_output=True,
                          text=True, check=False, cwd=ROOT, **options)  # fmt: skip


def help_of(words):
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, [*words, "-h"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert done.exit_code == 0
    return done.stdout


def examples(text):
    """Command lines in a help; the ends of their lines undone."""
    after = re.split(r"^ *Examples?:$", text, maxsplit=1, flags=re.MULTILINE)[1]
    return [line.strip() for line in after.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_ends_with_examples_that_are_commands(words):
    assert type(COMMANDS[words]) is Command
    found = examples(help_of(words))
    assert found
    for line in found:
        name, *rest = shlex.split(line)
        assert name == "icbs"
        assert tuple(rest[: len(words)]) == words
        # Reads all options and their types; runs nothing.
        COMMANDS[words].make_context(line, rest[len(words) :])


@pytest.mark.parametrize("words", [(), ("store",), *COMMANDS], ids=" ".join)
def test_every_help_fits_80_columns_and_is_the_same_under_both_names(words):
    text = help_of(words)
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.replace("ARGS]...", "").replace("{what}...", "").replace(
        "{sources}...", "").replace("what...", "").replace("sources...", "")  # fmt: skip


def test_the_list_of_commands_has_whole_sentences():
    text = " ".join(help_of(()).split())
    for (name, *more), command in COMMANDS.items():
        if not more:
            assert f"{name} {' '.join(command.help.split('.')[0].split())}." in text or (
                f"{name} {' '.join(command.help.partition(chr(10))[0].split())}" in text
            )


def test_every_option_is_explained():
    for words, command in COMMANDS.items():
        for parameter in command.params:
            assert getattr(parameter, "help", None), (words, parameter.name)


WORDS = r"\b(lane|incumbent)s?\b"


def test_helps_use_the_words_of_the_glossary():
    for words in COMMANDS:
        assert not re.search(WORDS, help_of(words)), words


def test_the_version_is_that_of_the_package():
    assert icbs.__version__ == version("icbs-bench")
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"icbs {version('icbs-bench')}\n")


def test_help_and_version_import_nothing_slow():
    script = (
        "import sys; sys.argv = ['icbs', sys.argv[1]]\n"
        "from experiments.cli import app\n"
        "app(standalone_mode=False)\n"
        "slow = {'numpy', 'scipy', 'dimod', 'torch', 'transformers', 'pandas', 'matplotlib'}\n"
        "print(sorted(set(sys.modules) & slow), file=sys.stderr)\n"
    )
    for word in ("--help", "-h", "--version"):
        done = subprocess.run([sys.executable, "-c", script, word], capture_output=True,
                              text=True, check=True, cwd=ROOT)  # fmt: skip
        assert done.stderr == "[]\n", word
        assert done.stdout


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "icbs", "-h"], capture_output=True,
                          text=True, check=True, cwd=ROOT)  # fmt: skip
    assert "Start with: icbs demo --fast" in done.stdout
