"""Loads a config: reads all its bindings, checks them together, and returns plain functions with the values bound.

A config wires functions together by references (`train.build_model = @build_two_tower`), starting from `train_and_evaluate`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mm_keras.config.functions import configurable_functions
from mm_keras.config.parse import COMMAND_LINE, CONFIG_FOLDER, ConfigError, Reference, parse_file, parse_lines
from mm_keras.config.resolve import Resolver


@dataclasses.dataclass(frozen=True)
class Config:
    """A config that was read and checked.

    Attributes:
        functions: maps the name of each configurable function to the function with its bound values. Arguments of a call
            win over bound values.
        given: the text of the config file, with overrides as comments at its end.
        operative: all values that are used, defaults among them, as the text of a config.
        bound: maps "function.parameter" to the bound value. Macros are replaced by their values; functions are `Reference`
            objects.
        early_checks: functions without arguments, which raise if what the config names on this machine or over the network
            cannot be had; to be called before anything else.
    """

    functions: Mapping[str, Callable]
    given: str
    operative: str
    bound: Mapping[str, Any]
    early_checks: Sequence[Callable[[], None]] = ()


def find_config(name: str) -> Path:
    """Returns the config file of that path, or else the one of that name in configs/.

    Raises:
        ConfigError: if neither exists; the message lists the configs that do.
    """
    for path in (Path(name), CONFIG_FOLDER / name):
        if path.is_file():
            return path
    known = sorted(path.name for path in CONFIG_FOLDER.glob("*.gin"))
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"no config {name!r}, here or among {known}{hint}")


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Reads a config, checks all of it, and binds its values.

    Args:
        path: the config file. None: there are only overrides, which may bind functions that `train_and_evaluate` does not
            reach.
        overrides: lines such as "train.epochs = 3", which win over those of the file.

    Raises:
        ConfigError: for a syntax error, an unknown function, parameter, reference or macro, a reference that comes back to
            itself, a value that is required and not given or that does not fit its parameter, or a binding that nothing
            uses. It is raised before any of the functions runs.

    Example:
        >>> config = load_config(find_config("quickstart.gin"), ["train.epochs = 3"])
        >>> config.functions["train_and_evaluate"]("runs/quickstart")
    """
    bindings = [*(parse_file(path) if path else ()), *parse_lines(overrides)]
    resolver = Resolver(bindings)
    problems = [*resolver.unknown_names(), *resolver.circles()]
    if not problems:
        problems = [*resolver.follow(complete=path is not None), *resolver.misfits()]
    if problems:
        raise ConfigError(f"{path or COMMAND_LINE}:" + "".join(f"\n  {problem}" for problem in problems))
    given = path.read_text("utf-8") + "".join(f"\n# {COMMAND_LINE}: {line}" for line in overrides) + "\n" if path else ""
    return Config(
        functions={name: resolver.function(Reference("", name, False)) for name in configurable_functions()},
        given=given,
        operative=resolver.operative() if path else "",
        bound=resolver.bound(),
        early_checks=resolver.early_checks() if path else (),
    )
