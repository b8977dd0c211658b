"""Loads a config: its bindings are read and checked as a whole, and become plain functions with their values bound.

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
    """A config that can run.

    Attributes:
        functions: name -> the function with its bound values; arguments of a call win over them.
        given: the config as it was given, with overrides as comments at its end.
        operative: all values that are used, defaults among them, as a config.
        bound: "function.parameter" -> the bound value, macros resolved; of functions, their name.
    """

    functions: Mapping[str, Callable]
    given: str
    operative: str
    bound: Mapping[str, Any]


def find_config(name: str) -> Path:
    """The config file of that path, or, for a bare name, of that name in configs/.

    Raises:
        ConfigError: if there is none; the message lists what there is.
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
        path: the config file; None: overrides alone, which need not be reached from `train_and_evaluate`.
        overrides: lines that win over those of the file.

    Raises:
        ConfigError: for a syntax error, an unknown function, parameter, reference or macro, a value that is required and
            not given, one that does not fit its parameter, or a binding that nothing uses; before any of the functions runs.

    Example:
        >>> config = load_config(find_config("quickstart.gin"), ["train.epochs = 3"])
        >>> config.functions["train_and_evaluate"]("runs/quickstart")
    """
    bindings = [*(parse_file(path) if path else ()), *parse_lines(overrides)]
    resolver = Resolver({binding.key: binding for binding in bindings})
    problems = list(resolver.unknown_names())
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
    )
