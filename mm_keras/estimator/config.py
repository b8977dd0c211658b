"""The config that a packed table and a choice of encoders amount to: what one would have written by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from mm_keras.data.pipeline import iter_texts
from mm_keras.estimator.parts import Parts, part_lines
from tfrecords_tools.dataset.folder import Dataset, Split

_SAMPLE = 2000  # texts whose lengths are looked at
_FEWEST_STEPS = 600  # of a training by gradient; small data are shown more often
_EPOCHS = (10, 60)  # fewest and most epochs


def make_config(
    dataset: Dataset, data_lines: Sequence[str], fields: Sequence[str], parts: Parts, val_split: str | None, seed: int
) -> str:
    """Writes a gin config that trains on a packed table.

    Args:
        dataset: the packed table.
        data_lines: lines that bind `train.dataset`.
        fields: the text fields that the model sees.
        parts: its encoders.
        val_split: the split that decides on the best epoch, if there is one.
        seed: of the training.

    Returns:
        the text of the config; it includes configs/base/experiment.gin and nothing else.
    """
    train = dataset.split("train")
    lengths = {field: _token_limit(train, field) for field in fields}
    lines = [
        'include "base/experiment.gin"',
        "",
        *data_lines,
        "",
        *part_lines(parts, fields, lengths),
        "",
        f"train.val_split = {val_split!r}",
        f"train.seed = {seed}",
    ]
    return "\n".join([*lines, *_training_lines(parts, train.num_labelled, val_split)]) + "\n"


def _training_lines(parts: Parts, num_examples: int, val_split: str | None) -> list[str]:
    batch_size = next(size for size in (8, 16, 32, 64) if size == 64 or num_examples < size * 20)
    lines = [f"train.batch_size = {min(batch_size, max(1, num_examples))}"]
    if parts.all_frozen:
        return [*lines, "train.augment = False  # frozen features of the same pixels"]
    epochs = int(np.clip(np.ceil(_FEWEST_STEPS * batch_size / max(num_examples, 1)), *_EPOCHS))
    rate = 3e-3 if "small" in (parts.image, parts.text) else 3e-4 if parts.trained else 1e-3
    lines += [
        f"train.epochs = {epochs}",
        f"train.augment = {parts.trained == 'image'}",
        f"make_optimizer.learning_rate = {rate}",
    ]
    lines += ["make_optimizer.layer_rates = {'text_encoder': 0.1}"] if parts.trained == "text" else []
    return [*lines, "train.patience = 8"] if val_split else lines


def _token_limit(split: Split, field: str) -> int:
    """How many tokens nearly all texts of a field have: 1.5 a word, more where a script has no spaces."""
    texts = itertools.islice(itertools.chain.from_iterable(iter_texts(split, [field])), _SAMPLE)
    counts = [1.5 * len(text.split()) + 0.7 * sum(ord(letter) > 0x2E80 for letter in text) for text in map(_as_text, texts)]
    limit = float(np.quantile(counts, 0.98)) + 4 if counts else 16
    return int(np.clip(np.ceil(limit / 16) * 16, 16, 256))


def _as_text(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text
