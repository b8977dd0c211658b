"""The commands of sources: the module of each format has a `COMMAND`, which `tfrecords-tools pack` finds by itself."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

from tfrecords_tools.sources.example import Source


@dataclasses.dataclass(frozen=True)
class SourceCommand:
    """The sub-command of `tfrecords-tools pack` for one source.

    Attributes:
        name: the name of the source on the command line.
        help: one line for the list of sources.
        epilog: the end of the help page: examples that run, and notes.
        add_arguments: a function that adds the arguments of the source to a parser.
        make_source: a function that makes the source from the parsed arguments.
    """

    name: str
    help: str
    epilog: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    make_source: Callable[[argparse.Namespace], Source]


def find_commands() -> list[SourceCommand]:
    """The commands of all modules in this folder, in alphabetical order of their names."""
    package = __package__
    names = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    modules = [importlib.import_module(f"{package}.{name}") for name in names]
    commands = [module.COMMAND for module in modules if hasattr(module, "COMMAND")]
    return sorted(commands, key=lambda command: command.name)


def split_paths(pairs: list[str]) -> dict[str, Path]:
    """["train=a.json", "b.json"] -> {"train": Path("a.json"), "": Path("b.json")}; "" stands for any split."""
    paths: dict[str, Path] = {}
    for pair in pairs:
        split, mark, path = pair.partition("=")
        split, path = (split, path) if mark else ("", pair)
        if split in paths:
            raise ValueError(f"given twice for {split or 'any split'!r}: {paths[split]} and {path}")
        paths[split] = Path(path)
    return paths


def comma_list(text: str) -> tuple[str, ...]:
    """Splits a list at its commas; an item that has a comma itself is put between double quotes.

    Example:
        >>> comma_list("title, brand"), comma_list('"Size, colour",title'), comma_list("")
        (('title', 'brand'), ('Size, colour', 'title'), ())
    """
    (parts,) = csv.reader([text], skipinitialspace=True) if text else [()]
    return tuple(part.strip() for part in parts if part.strip())
