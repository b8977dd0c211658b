"""Pages of the reference that are made when the site is built: the commands, by their parsers, and what configs may bind."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator

from mkdocs.structure.files import File

from mm_keras.cli.start_up import import_tensorflow


def on_files(files, config):
    """Adds the pages; MkDocs calls it once it has found the others."""
    import_tensorflow()  # without what it prints
    for name, text in (("commands", commands_page()), ("configs", configs_page())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def commands_page() -> str:
    """Every command of both programs, with its options as `--help` shows them."""
    from mm_keras.cli.main import make_parser as make_mm_keras
    from tfrecords_tools.cli.main import make_parser as make_tools

    lines = ["# Commands", "", "What `COMMAND --help` shows. Options are accepted with `-` and with `_` in their names."]
    for parser in (make_mm_keras(), make_tools()):
        lines += ["", f"## {parser.prog}", "", parser.description or ""]
        for name, command in _commands(parser):
            lines += ["", f"### {parser.prog} {name}", "", "```text", _help(command), "```"]
    return "\n".join(lines) + "\n"


def _commands(parser: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(name, parser) of each command without further commands below it."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield before, parser
    for action in below:
        for name, command in action.choices.items():
            yield from _commands(command, f"{before} {name}".strip())


def _help(command: argparse.ArgumentParser) -> str:
    command.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=84)
    return command.format_help().rstrip()


def configs_page() -> str:
    """Every function that a config can bind, with its parameters, their defaults and what they mean."""
    from mm_keras.config.functions import configurable_functions

    lines = [
        "# Configs",
        "",
        "A config binds parameters of the functions below, as `function.parameter = value`; `@function` is a reference to "
        "another one, and `@function()` what it returns. Parameters without a default are given by the program, or have to be "
        "bound. `mm-keras train CONFIG --dry_run` checks a config, and `operative_config.gin` in a run folder lists all values "
        "that were used.",
    ]
    for name, function in configurable_functions().items():
        about, arguments = _described(function)
        lines += ["", f"## {name}", "", f"`{function.__module__}`. {about}", ""]
        lines += ["| parameter | default | |", "| --- | --- | --- |"]
        for parameter in inspect.signature(function).parameters.values():
            default = "" if parameter.default is inspect.Parameter.empty else f"`{_shown(parameter.default)}`"
            lines.append(f"| `{parameter.name}` | {default} | {_cell(arguments.get(parameter.name, ''))} |")
    return "\n".join(lines) + "\n"


def _described(function) -> tuple[str, dict[str, str]]:
    """The first sentence of a docstring, and what it says of each parameter."""
    text = inspect.getdoc(function) or ""
    about = " ".join(text.split("\n\n")[0].split())
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)
    arguments: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\S)", section.group(1).rstrip()) if section else []:
        names, _, meaning = entry.strip().partition(":")
        arguments |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(meaning.split()))
    return about, arguments


def _shown(value) -> str:
    if inspect.isfunction(value):
        return f"@{value.__name__}"
    return repr(value)  # a table's cells do not end at a | in code


def _cell(text: str) -> str:
    return _escape(text).replace("<", "&lt;")


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
