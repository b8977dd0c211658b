"""Chooses which parts of a dataset a model takes in, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from mm_keras.configurable import ImageSize, PositiveInt, configurable
from mm_keras.data.pipeline import iter_texts
from mm_keras.data.text import make_word_tokenizer, tell_of_unknown
from mm_keras.features import EmbedderSpec, FeatureSpec, ImageSpec, TextSpec, TokenizerSpec, TokenText, make_saved_model_text
from tfrecords_tools.dataset.folder import Dataset

_SAMPLED = 2000  # examples whose texts are searched for unknown tokens


@configurable
def make_features(
    dataset: str | Path | Dataset,
    image_size: ImageSize | None = (224, 224),
    image_fit: Literal["crop", "stretch"] = "crop",
    text_fields: Sequence[str] = (),
    max_tokens: PositiveInt | Mapping[str, PositiveInt] = 64,
    make_tokenizer: Callable[..., TokenizerSpec] = make_word_tokenizer,
    make_embedder: Callable[[], EmbedderSpec] | None = None,
    train_split: str = "train",
    allow_label_derived_inputs: bool = False,
) -> FeatureSpec:
    """Describes the features of a model for a dataset.

    Args:
        dataset: the dataset, or its folder.
        image_size: (height, width) in pixels of the image tower's input; None: the model takes no image.
        image_fit: "crop" or "stretch", see `ImageSpec`.
        text_fields: the text fields that the model sees.
        max_tokens: the number of tokens of a text that are kept: one number for all fields, or one for each field.
        make_tokenizer: `(batches of texts) -> TokenizerSpec`, called with the texts of the training split; all fields share
            the tokenizer.
        make_embedder: `() -> EmbedderSpec` of a SavedModel that embeds the texts of all fields; `make_tokenizer` and
            `max_tokens` are then not used. None: the model takes tokens.
        train_split: the split whose texts make the vocabulary.
        allow_label_derived_inputs: allow a text that is computed from the label as an input. Such a text gives the label away,
            so that the accuracy means nothing unless the text is known before the label is.

    Raises:
        ValueError: for a field that the dataset lacks, a label-derived one, or one without `max_tokens`.
    """
    dataset = Dataset.open(dataset)
    info = dataset.info
    unknown = [field for field in text_fields if field not in info.text_fields]
    if unknown:
        raise ValueError(f"dataset {dataset.folder} has no text field {unknown[0]!r}; it has {sorted(info.text_fields)}")
    derived = [field for field in text_fields if info.text_fields[field]]
    if derived and not allow_label_derived_inputs:
        raise ValueError(
            f"text field {derived[0]!r} is derived from the label and would tell it to the model; leave it out of "
            "text_fields, or set make_features.allow_label_derived_inputs = True"
        )
    if make_embedder and text_fields:
        embedder = make_embedder()
        texts: list[TextSpec] = [make_saved_model_text(field, embedder) for field in text_fields]
    else:
        lengths = max_tokens if isinstance(max_tokens, Mapping) else dict.fromkeys(text_fields, max_tokens)
        if set(lengths) != set(text_fields):
            raise ValueError(f"max_tokens names the fields {sorted(lengths)}, text_fields {sorted(text_fields)}")
        tokenizer = make_tokenizer(iter_texts(dataset.split(train_split), list(text_fields))) if text_fields else None
        if tokenizer:
            tell_of_unknown(tokenizer, iter_texts(dataset.split(train_split), list(text_fields), _SAMPLED))
        texts = [TokenText(field, tokenizer, lengths[field]) for field in text_fields]
    return FeatureSpec(
        image=ImageSpec(tuple(image_size), image_fit) if image_size else None,
        texts=tuple(texts),
        labels=tuple(info.labels.names),
        multi_label=info.multi_label,
    )
