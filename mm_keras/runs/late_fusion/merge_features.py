"""The features of several trained runs as one, for a model that holds them all."""

from __future__ import annotations

import dataclasses
import filecmp
from collections.abc import Mapping
from pathlib import Path

from mm_keras.features import IMAGE, EmbedderSpec, FeatureSpec, ImageSpec, SavedModelText, TextSpec

_HOW = (
    "a fused run makes each input once, so train both with the same settings of make_features. (One tokenizer is made of all "
    "text_fields: to let runs see a field each, give both all of them, and set train.modalities.)"
)


def merge_features(features: Mapping[str, FeatureSpec]) -> FeatureSpec:
    """Merges features: every input that any of the runs sees.

    Args:
        features: the features of each run, by the run's name.

    Returns:
        their labels; the image, if any sees it, and all text fields.

    Raises:
        ValueError: for runs with other labels, or that see a modality in another way; the message says how two of them differ.
    """
    (first_run, first), *others = features.items()
    for run, spec in others:
        _check_labels(first_run, first, run, spec)
    image: tuple[str, ImageSpec] | None = None
    texts: dict[str, tuple[str, TextSpec]] = {}
    embedders: list[EmbedderSpec] = []
    for run, spec in features.items():
        if spec.image:
            image = image or (run, spec.image)
            if image[1] != spec.image:
                raise ValueError(_difference(image[0], run, IMAGE, _describe_image(image[1]), _describe_image(spec.image)))
        for text in spec.texts:
            text = _with_known_embedder(text, embedders)
            other, known = texts.setdefault(text.field, (run, text))
            if known != text:
                mine, yours = known.describe(), text.describe()
                if mine == yours:
                    yours = "another of that kind"
                raise ValueError(_difference(other, run, text.field, mine, yours))
    return dataclasses.replace(first, image=image and image[1], texts=tuple(text for _, text in texts.values()))


def _check_labels(first_run: str, first: FeatureSpec, run: str, other: FeatureSpec) -> None:
    if first.multi_label != other.multi_label:
        kinds = {True: "multi-label", False: "multi-class"}
        raise ValueError(
            f"{first_run} is {kinds[first.multi_label]}, {run} is {kinds[other.multi_label]}: fuse runs of one dataset"
        )
    if len(first.labels) != len(other.labels):
        difference = f"has {len(first.labels):,} labels, {run} has {len(other.labels):,}"
    else:
        index = next((i for i, pair in enumerate(zip(first.labels, other.labels, strict=True)) if pair[0] != pair[1]), None)
        if index is None:
            return
        difference = f"has {first.labels[index]!r} as label {index}, {run} has {other.labels[index]!r}"
    raise ValueError(f"{first_run} {difference}: fuse runs of one dataset")


def _with_known_embedder(text: TextSpec, embedders: list[EmbedderSpec]) -> TextSpec:
    """The text field, with an equal SavedModel of `embedders` in the place of its own: each run has a copy."""
    if not isinstance(text, SavedModelText):
        return text
    known = next((embedder for embedder in embedders if _are_equal(embedder, text.embedder)), None)
    if known is None:
        embedders.append(text.embedder)
    return dataclasses.replace(text, embedder=known or text.embedder)


def _are_equal(first: EmbedderSpec, second: EmbedderSpec) -> bool:
    if (first.width, first.trainable) != (second.width, second.trainable):
        return False
    if first.trainable:  # the Keras models hold the SavedModels, and take strings
        return True
    folders = [Path(first.path), Path(second.path)]
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) for folder in folders]
    return names[0] == names[1] and all(filecmp.cmp(folders[0] / name, folders[1] / name, shallow=False) for name in names[0])


def _difference(first_run: str, run: str, modality: str, first: str, other: str) -> str:
    return f"{first_run} sees {modality!r} as {first}, {run} as {other}; {_HOW}"


def _describe_image(image: ImageSpec) -> str:
    return f"{image.size[0]}x{image.size[1]} pixels ({image.fit})"
