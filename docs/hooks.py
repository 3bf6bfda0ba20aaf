"""Hooks of MkDocs: the pages that are made, not written, and links that leave this folder.

`index.md`, `contributing.md` and `changelog.md` are the repository's own README, CONTRIBUTING and
CHANGELOG. `cli.md` comes from the commands, the API from the packages. Pages link to each other and
to figures as the repository lies; a link is moved to where the site has its target.
"""

from __future__ import annotations

import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
PACKAGES = ("solvers", "icbs", "experiments")
# Programs, not an interface: they are run by name.
PROGRAMS = ("experiments.benchmarks", "experiments.cli", "experiments.scripts")
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts a page for every package into the navigation."""
    assert config.nav is not None
    (api,) = (entry for entry in config.nav if "API" in entry)
    api["API"] = [{name: _api_page(name)} for name in _packages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made, and the files of `results/` that a page links to."""
    made = {home: (ROOT / name).read_text("utf-8") for name, home in ROOT_PAGES.items()}
    made["cli.md"] = _cli()
    made |= {_api_page(name): _api(name, modules) for name, modules in _packages().items()}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    for page in list(files.documentation_pages()):
        for link in LINK.findall(page.content_string):
            target = _target(page.src_uri, link)
            if target.startswith("results/") and files.get_file_from_path(target) is None:
                if not (ROOT / target).is_file():
                    raise PluginError(f"{page.src_uri} links to {link}, and there is no {target}")
                source = str(ROOT / target)
                files.append(File.generated(config, target, abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Moves links to where the site has their targets."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        return posixpath.relpath(_site(_target(here, match[1])), posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)


def _target(page: str, link: str) -> str:
    """What a page's link means, as a path in the repository."""
    home = {uri: name for name, uri in ROOT_PAGES.items()}.get(page, f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(home), link))


def _site(path: str) -> str:
    """Where the site has a file of the repository."""
    return ROOT_PAGES.get(path, path.removeprefix("docs/"))


def _packages() -> dict[str, list[str]]:
    """Package -> its public modules."""
    found: dict[str, list[str]] = {}
    for name in PACKAGES:
        for path in sorted((ROOT / name).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            package = ".".join(parts[:-1])
            if not package.startswith(PROGRAMS) and not parts[-1].startswith("_"):
                found.setdefault(package, []).append(".".join(parts))
    return {package: found[package] for package in sorted(found, key=_order)}


def _order(package: str) -> tuple[int, str]:
    return PACKAGES.index(package.split(".")[0]), package


def _api_page(package: str) -> str:
    return f"api/{package}.md"


def _api(package: str, modules: list[str]) -> str:
    """A page of API: the package's own words, then each of its modules."""
    parts = [f"# {package}", f"::: {package}", "    options: {show_root_heading: false}"]
    for module in modules:
        parts += [f"## {module}", f"::: {module}", "    options: {show_root_heading: false}"]
    return "\n\n".join(parts).replace("\n\n    options", "\n    options") + "\n"


def _cli() -> str:
    """The page on the command line, from the commands themselves."""
    import typer

    from experiments.cli import app

    parts = ["# Command line", "Made from the commands; `icbs COMMAND --help` says the same."]
    for path, command in _commands("icbs", typer.main.get_command(app)):
        words = (command.help or "").replace("\b", "").replace("*", r"\*")
        parts += [f"## {path}", words, *_examples(command.epilog or "")]
        rows = [row for one in command.params if (row := _row(one)) is not None]
        if rows:
            head = "| argument or option | default | meaning |\n|---|---|---|"
            parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts) + "\n"


def _commands(path: str, command: Any) -> list[tuple[str, Any]]:
    """Every command that does something, with the words that call it."""
    below = getattr(command, "commands", None)
    if below is None:
        return [(path, command)]
    return [
        found
        for name, one in below.items()
        if not one.hidden
        for found in _commands(f"{path} {name}", one)
    ]


def _examples(epilog: str) -> list[str]:
    """What a help ends with, as a block of code."""
    lines = epilog.replace("\b", "").strip().splitlines()[1:]
    return ["```\n" + textwrap.dedent("\n".join(lines)) + "\n```"] if lines else []


def _row(parameter: Any) -> str | None:
    """A parameter as a row of a table; None for those that every command has."""
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return None
    optional = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if optional else parameter.name.upper()
    default = "" if parameter.default in (None, "") else str(parameter.default)
    shown = "required" if parameter.required else f"`{default}`" if default else ""
    meaning = (getattr(parameter, "help", None) or "").replace("|", r"\|").replace("*", r"\*")
    return f"| `{name}` | {shown} | {meaning} |"
