"""Reads sweep files, which list settings and how often each is trained, or the ranges in which to search for better ones.

    config = "quickstart.gin"                             # or several: ["webvision_use.gin", "webvision_bert.gin"]
    repeats = 3                                           # each setting is trained with the seeds 0, 1, 2
    bindings = ["train.epochs = 8"]                       # gin lines of all settings

    [sweep]                                               # gin parameters; all combinations of their values are trained
    "make_optimizer.learning_rate" = [1e-3, 3e-3]
    "build_two_tower.fusion" = ["@build_concatenation", "@build_gated_fusion"]

    [variants]                                            # named lists of gin lines, combined with the values above
    small = ["build_tuning_dnn.units = (64,)"]
    large = ["build_tuning_dnn.units = (256,)", "train.batch_size = 32"]

A search has a table [search] instead of [sweep] and [variants]:

    [search]
    trials = 20
    "make_optimizer.learning_rate" = {low = 1e-4, high = 1e-2, log = true}
    "make_optimizer.warmup_fraction" = [0.0, 0.1]
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from mm_keras.config.parse import CONFIG_FOLDER

_KEYS = ("config", "repeats", "bindings", "sweep", "variants", "search")
_RANGE = {"low", "high", "log"}
_SEED = "train.seed"
_LEFT_OUT = ("train_and_evaluate.export = None", "train_and_evaluate.report = None")  # unless `bindings` bind them otherwise


class SweepError(ValueError):
    """A sweep file that cannot be run; the message names the file and the key."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the trainings with different seeds have in common.

    Attributes:
        shown: what distinguishes it from other settings: name of the axis -> value, as tables show them.
        config: the gin config as the sweep file names it.
        bindings: gin lines that override the config.
    """

    shown: dict[str, str]
    config: str
    bindings: tuple[str, ...]

    @property
    def name(self) -> str:
        return ", ".join(f"{axis}={value}" for axis, value in self.shown.items()) or Path(self.config).stem


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`: integers if both are integers. With `log`, they are drawn evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool


@dataclasses.dataclass(frozen=True)
class Search:
    """How many settings are tried, and what the values of each gin parameter are drawn from: a range, or gin expressions."""

    trials: int
    space: dict[str, Range | tuple[str, ...]]

    def setting(self, sweep: Sweep, drawn: Mapping[str, object]) -> Setting:
        """The setting with the drawn values: a gin expression for each choice, and a number of four digits for each range."""
        names = _short(list(self.space))
        texts = {
            key: repr(float(f"{drawn[key]:.4g}")) if isinstance(drawn[key], float) else str(drawn[key]) for key in self.space
        }
        shown = {names[key]: _shown(text) for key, text in texts.items()}
        return Setting(shown, sweep.configs[0], (*sweep.bindings, *(f"{key} = {text}" for key, text in texts.items())))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        path: the file.
        configs: the gin configs to compare.
        repeats: how many trainings each setting has, with the seeds 0, 1, …
        bindings: gin lines of all settings.
        axes: name of the axis -> value as tables show it -> gin lines. Several configs are a further axis.
        search: the search, if the file asks for one; there are no axes then.
    """

    path: Path
    configs: tuple[str, ...]
    repeats: int
    bindings: tuple[str, ...]
    axes: dict[str, dict[str, tuple[str, ...]]]
    search: Search | None

    def settings(self) -> Iterator[Setting]:
        """All combinations; the first axis changes slowest."""
        for config in self.configs:
            first = {"config": Path(config).stem} if len(self.configs) > 1 else {}
            for values in itertools.product(*(axis.items() for axis in self.axes.values())):
                shown = first | {axis: value for axis, (value, _) in zip(self.axes, values, strict=True)}
                yield Setting(shown, config, (*_LEFT_OUT, *self.bindings, *(line for _, lines in values for line in lines)))


def find_sweep(name: str | Path) -> Path:
    """The sweep file of that path, or else the one of that name in configs/sweeps/."""
    shipped = CONFIG_FOLDER / "sweeps" / name
    return shipped if not Path(name).is_file() and shipped.is_file() else Path(name)


def read_sweep(path: str | Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        SweepError: if it is not TOML, or has a key or a value that nothing can be made of.
        FileNotFoundError: if it is not there.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SweepError(f"{path} is not TOML: {error}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no sweep file {path}; docs/sweeps.md shows one") from error
    for key in content:
        if key not in _KEYS:
            raise SweepError(f"{path} has a key {key!r}; known are {', '.join(_KEYS)}, and gin parameters stand in [sweep]")
    configs = content.get("config")
    configs = tuple(configs) if isinstance(configs, list) else (configs,)
    if not configs or not all(isinstance(config, str) for config in configs) or len(set(configs)) < len(configs):
        raise SweepError(f"{path}: config names a gin config, or a list of different ones. Received: {content.get('config')!r}")
    repeats = content.get("repeats", 1)
    if type(repeats) is not int or repeats < 1:
        raise SweepError(f"{path}: repeats is a number of trainings a setting, at least 1. Received: {repeats!r}")
    bindings = _lines(path, "bindings", content.get("bindings", []))
    search = None
    if "search" in content:
        if len(configs) > 1 or "repeats" in content or "sweep" in content or "variants" in content:
            raise SweepError(f"{path}: [search] is of one config, without repeats, [sweep] and [variants]")
        search = _read_search(path, content["search"])
    return Sweep(path, configs, repeats, bindings, _read_axes(path, content, len(configs) > 1), search)


def _read_axes(path: Path, content: dict, several_configs: bool) -> dict[str, dict[str, tuple[str, ...]]]:
    parameters = dict(_flat(path, "sweep", content.get("sweep", {})))
    names = _short(list(parameters), {"config", "variant"})
    axes = {}
    if "variants" in content:
        if not isinstance(content["variants"], dict) or not content["variants"]:
            raise SweepError(f"{path}: [variants] holds a list of gin lines a name. Received: {content['variants']!r}")
        axes["variant"] = {name: _lines(path, f"variants.{name}", lines) for name, lines in content["variants"].items()}
    for key, values in parameters.items():
        _check_parameter(path, key)
        texts = _choices(path, f'[sweep] "{key}"', values)
        axes[names[key]] = {_shown(text): (f"{key} = {text}",) for text in texts}
    return axes


def _read_search(path: Path, content: dict) -> Search:
    content = dict(content)
    trials = content.pop("trials", None)
    if type(trials) is not int or trials < 1:
        raise SweepError(f"{path}: [search] trials is how many settings are tried, at least 1. Received: {trials!r}")
    space = {}
    for key, value in _flat(path, "search", content):
        _check_parameter(path, key)
        if isinstance(value, list):
            space[key] = _choices(path, f'[search] "{key}"', value)
            continue
        numbers = [value.get("low"), value.get("high")]
        log = value.get("log", False)
        fine = all(type(number) in (int, float) and math.isfinite(number) for number in numbers) and type(log) is bool
        if not fine or set(value) - _RANGE or not numbers[0] < numbers[1] or (log and numbers[0] <= 0):
            raise SweepError(
                f'{path}: [search] "{key}" is a list, or {{low = …, high = …}} with low < high, and log = true if all are '
                f"above 0. Received: {value!r}"
            )
        space[key] = Range(*numbers, log)
    if not space:
        raise SweepError(
            f'{path}: [search] names no parameter, as "make_optimizer.learning_rate" = {{low = 1e-4, high = 1e-2}}'
        )
    return Search(trials, space)


def _flat(path: Path, where: str, table: object, prefix: str = "") -> Iterator[tuple[str, list | dict]]:
    """Yields (gin parameter, values). TOML reads a name with dots that is not quoted as nested tables; they are flattened."""
    if not isinstance(table, dict):
        raise SweepError(f"{path}: [{where}] is a table of gin parameters. Received: {table!r}")
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and not (where == "search" and _RANGE & set(value)):
            yield from _flat(path, where, value, f"{name}.")
        elif isinstance(value, list | dict):
            yield name, value
        else:
            raise SweepError(f'{path}: [{where}] "{name}" is a list of values. Received: {value!r}')


def _check_parameter(path: Path, key: str) -> None:
    if key == _SEED:
        raise SweepError(f"{path}: {_SEED} is the number of the repeat; say how many there are with repeats = …")


def _lines(path: Path, key: str, lines: object) -> tuple[str, ...]:
    if not isinstance(lines, list) or not all(isinstance(line, str) and "=" in line for line in lines):
        raise SweepError(f'{path}: {key} is a list of gin lines, as ["train.epochs = 8"]. Received: {lines!r}')
    for line in lines:
        _check_parameter(path, line.partition("=")[0].strip())
    return tuple(lines)


def _choices(path: Path, where: str, values: list) -> tuple[str, ...]:
    texts = tuple(_gin(path, where, value) for value in values)
    if not texts or len(set(map(_shown, texts))) < len(texts):
        raise SweepError(f"{path}: {where} is a list of different values. Received: {values!r}")
    return texts


def _gin(path: Path, where: str, value: object) -> str:
    """A TOML value as a gin expression: "@…" and "%…" become references, "None" None, arrays tuples, and tables dicts."""
    if isinstance(value, str):
        return value if value.startswith(("@", "%")) or value == "None" else repr(value)
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, list):
        return f"({''.join(_gin(path, where, item) + ', ' for item in value).rstrip(' ')})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_gin(path, where, item)}' for key, item in value.items())}}}"
    raise SweepError(f"{path}: {where} has a value that gin does not know. Received: {value!r}")


def _shown(text: str) -> str:
    """A gin expression as tables show it: '@build_head' -> 'build_head', "'sgd'" -> 'sgd'."""
    if text.startswith("@"):
        return text.strip("@()")
    return text.strip("'\"") if text[0] in "'\"" else text


def _short(keys: list[str], taken: frozenset[str] | set[str] = frozenset()) -> dict[str, str]:
    """Short names of parameters: the last part of a name where it is unique and not taken, else the whole name."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: end if last.count(end) == 1 and end not in taken else key for key, end in zip(keys, last, strict=True)}
