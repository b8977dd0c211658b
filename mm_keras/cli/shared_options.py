"""Options that several commands share, and what they stand for."""

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


def add_examples_options(parser: argparse.ArgumentParser, purpose: str, split: str = "test") -> None:
    """Adds --dataset and --split, which say where a command finds examples."""
    parser.add_argument("--dataset", metavar="FOLDER", help=f"the dataset with {purpose} (default: that of the training)")
    parser.add_argument("--split", help=f"the split with {purpose} (default: {split})")


def given_examples(options: argparse.Namespace) -> dict[str, str]:
    """Those of `dataset` and `split` that were given, as keywords: functions and configs have defaults of their own."""
    return {name: getattr(options, name) for name in ("dataset", "split") if getattr(options, name)}


def configured(name: str, config: str | None, bindings: Sequence[str]) -> Callable:
    """The configurable function `name`, with the values that the config and the bindings give as its defaults.

    Raises:
        ConfigError: if something is wrong with the config or a binding.
    """
    from mm_keras.config.load import find_config, load_config

    return load_config(find_config(config) if config else None, bindings).functions[name]
