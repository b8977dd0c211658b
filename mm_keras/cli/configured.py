"""Options of the commands that run functions which a config can bind: train, evaluate, export."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence


def add_bindings(parser: argparse.ArgumentParser) -> None:
    """Adds --set, alias --gin_bindings, as `options.gin_bindings`: a list of gin lines."""
    parser.add_argument(
        "--set",
        "--gin_bindings",
        dest="gin_bindings",
        action="append",
        default=[],
        metavar="LINE",
        help="a gin line that overrides the config, such as 'train.epochs=3'; may be repeated",
    )


def add_config_of_a_run(parser: argparse.ArgumentParser) -> None:
    """Adds --config and --set to a command that works on a run folder and needs neither."""
    parser.add_argument("--config", metavar="FILE", help="a gin config that binds parameters of this command")
    add_bindings(parser)


def configured(name: str, config: str | None, bindings: Sequence[str]) -> Callable:
    """The function of that name, with what the config and the bindings give as its defaults.

    Raises:
        ConfigError: if something is wrong with the config or a binding.
    """
    from mm_keras.config.load import find_config, load_config

    return load_config(find_config(config) if config else None, bindings).functions[name]
