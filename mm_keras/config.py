"""Gin configs: which functions can be bound, where configs are found, and what is wrong with one before it runs.

Gin stays here: the library's functions are plain Python, and registered, not decorated. A config wires them together by
references (`train.build_model = @build_two_tower`), starting from `train_and_evaluate`.
"""

from __future__ import annotations

import difflib
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gin

import mm_keras

ROOT = "train_and_evaluate"
_PACKAGE = Path(mm_keras.__file__).parent
CONFIG_FOLDER = next(folder / "configs" for folder in (_PACKAGE, _PACKAGE.parent) if (folder / "configs").is_dir())
_INCLUDE = re.compile(r"""include\s+(["'])(?P<name>.+)\1\s*(#.*)?$""")


class ConfigError(ValueError):
    """A config that cannot run; the message lists every problem."""


def configurable_functions() -> list[Callable]:
    """All functions that a config can bind."""
    from mm_keras import experiment, packed
    from mm_keras.data import augment, make_features, sampling, text
    from mm_keras.model import (
        fusion,
        head,
        image_tower,
        lexical_encoder,
        text_encoder,
        transformer_encoder,
        tuning_dnn,
        two_tower,
        word_vector_encoder,
    )
    from mm_keras.objectives import losses, metrics
    from mm_keras.runs.class_embeddings import embed_classes
    from mm_keras.runs.evaluate import evaluate
    from mm_keras.runs.export import export
    from mm_keras.tf_text_model.embedder import make_saved_model_embedder
    from mm_keras.tf_text_model.encoder import build_saved_model_encoder
    from mm_keras.training import schedules
    from mm_keras.training.optimizer import make_optimizer
    from mm_keras.training.train import train

    return [
        experiment.train_and_evaluate,
        train,
        evaluate,
        export,
        packed.sample_dataset,
        packed.table_dataset,
        packed.webvision_dataset,
        make_features.make_features,
        augment.make_augmentation,
        sampling.make_sampling,
        make_saved_model_embedder,
        text.make_caption_tokenizer,
        text.make_word_tokenizer,
        text.make_pretrained_tokenizer,
        two_tower.build_two_tower,
        image_tower.build_image_tower,
        image_tower.build_small_cnn,
        text_encoder.build_embedding_encoder,
        text_encoder.build_small_text_encoder,
        text_encoder.build_recurrent_encoder,
        lexical_encoder.build_lexical_encoder,
        build_saved_model_encoder,
        transformer_encoder.build_transformer_encoder,
        word_vector_encoder.build_word_vector_encoder,
        tuning_dnn.build_tuning_dnn,
        fusion.build_concatenation,
        fusion.build_gated_fusion,
        fusion.build_bilinear_fusion,
        fusion.build_cross_attention_fusion,
        head.build_head,
        head.build_per_label_head,
        head.build_class_embedding_head,
        embed_classes,
        losses.make_loss,
        losses.make_mse_loss,
        losses.make_focal_loss,
        losses.make_asymmetric_loss,
        metrics.make_metrics,
        make_optimizer,
        schedules.make_cosine_schedule,
        schedules.make_constant_schedule,
        schedules.make_step_schedule,
        schedules.make_plateau_schedule,
    ]


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


def load_config(path: Path | None, bindings: Sequence[str] = ()) -> dict[str, Callable]:
    """Reads a config and returns the functions with their bindings applied, by name.

    Args:
        path: the config file; None: bindings alone.
        bindings: gin lines that override it.

    Raises:
        ConfigError: for a syntax error, an unknown function, parameter, reference or macro, a value that is required and
            not given, or a binding that nothing uses; before any of the functions runs.
    """
    gin.clear_config(clear_constants=False)
    functions = {}
    for function in configurable_functions():
        name = function.__name__
        try:
            functions[name] = gin.get_configurable(name)
        except ValueError:
            functions[name] = gin.external_configurable(function, name, module="mm_keras")
    if path:
        _parse_file(path, (), functions)
    _parse(list(bindings), "--gin_bindings", functions)
    problems = list(_find_problems()) if path else []
    if problems:
        raise ConfigError(f"{path}:" + "".join(f"\n  {problem}" for problem in problems))
    return functions


def _parse_file(path: Path, including: tuple[Path, ...], functions: dict[str, Callable]) -> None:
    """Parses a file, and what it includes: files relative to it, else to the config folder.

    gin's own includes look in the working folder, and import a package of the folder's name, before they look here.
    """
    if path in including:
        raise ConfigError(f"{path} includes itself")
    segment: list[str] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        include = _INCLUDE.match(line)
        if not include:
            segment.append(line)
            continue
        _parse(segment, str(path), functions)
        segment = [""] * number  # so that gin counts lines as the file does
        folders = (path.parent, CONFIG_FOLDER)
        found = next((folder / include["name"] for folder in folders if (folder / include["name"]).is_file()), None)
        if not found:
            raise ConfigError(f"{path}, line {number}: no file {include['name']!r} in {' or '.join(map(str, folders))}")
        _parse_file(found, (*including, path), functions)
    _parse(segment, str(path), functions)


def _parse(lines: Sequence[str], where: str, functions: dict[str, Callable]) -> None:
    try:
        gin.parse_config("\n".join(lines))
    except tokenize.TokenError as error:
        raise ConfigError(f"{where}: a bracket or a quote is never closed") from error
    except (ValueError, SyntaxError) as error:
        names = f"\n  functions: {', '.join(sorted(functions))}" if "No configurable matching" in str(error) else ""
        raise ConfigError(f"{where}: {error}{names}") from error


def bind(parameter: str, value: object) -> None:
    """Binds a parameter ("train.on_start") to any object, after the config."""
    gin.bind_parameter(parameter, value)


def bound_values() -> tuple[dict[str, object], str]:
    """What the loaded config binds, by "function.parameter", and all of it as gin: the same for the same bindings."""
    bound = {f"{_owner(*key)}.{name}": value for key, values in gin.config._CONFIG.items() for name, value in values.items()}
    return bound, gin.config_str()


def operative_config() -> str:
    """The values that were used, as gin."""
    return gin.operative_config_str()


def _find_problems() -> Iterator[str]:
    """Follows all references from the root; what was not reached is not used."""
    bindings = gin.config._CONFIG  # the parsed bindings; gin has no public way to list them
    used, macros, todo = {ROOT}, set(), [ROOT]
    while todo:
        owner = todo.pop()
        values = [(key, parameter, value) for key, bound in bindings.items() for parameter, value in bound.items()]
        for parameter, value in ((p, v) for key, p, v in values if _owner(*key) == owner):
            for reference in map(repr, _references(value)):
                if reference == "%gin.REQUIRED":
                    name = owner.removeprefix("%") if owner.startswith("%") else f"{owner}.{parameter}"
                    yield f"{name} is required; give it with --gin_bindings='{name}=…'"
                    continue
                target = reference if reference.startswith("%") else re.split(r"[/.]", reference.strip("@()"))[-1]
                if target.startswith("%"):
                    macros.add(target)
                if target not in used:
                    used.add(target)
                    todo.append(target)
    for macro in sorted(macros - {_owner(*key) for key in bindings}):
        yield f"{macro} is used and not given; give it with --gin_bindings='{macro[1:]}=…'"
    for key, bound in bindings.items():
        owner = _owner(*key)
        if owner not in used:
            name = owner.removeprefix("%") if owner.startswith("%") else ", ".join(f"{owner}.{each}" for each in bound)
            reference = owner if owner.startswith("%") else f"@{owner}"
            yield f"{name} is bound, but nothing uses it; refer to {reference} or delete the line"


def _owner(scope: str, selector: str) -> str:
    """Name of the function, or %name of the macro, that a key of gin's bindings belongs to."""
    return f"%{scope}" if selector == "gin.macro" else selector.rsplit(".", 1)[-1]


def _references(value) -> Iterator[gin.config.ConfigurableReference]:
    if isinstance(value, gin.config.ConfigurableReference):
        yield value
    elif isinstance(value, dict):
        for item in (*value.keys(), *value.values()):
            yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)
