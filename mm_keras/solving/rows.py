"""The training examples as the solver knows them: blocks of numbers, targets, weights, folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mm_keras.features import IMAGE, FeatureSpec, TokenText, present
from mm_keras.model.two_tower_parts import part_name
from mm_keras.solving.blocks import Block, Words, unit_rows
from mm_keras.solving.folds import assign_folds, group_duplicates
from mm_keras.solving.regression import Problem

_FOLDS = 5
_PLACEHOLDER = 20  # a picture or text that more than one in so many examples has is no sign of a copy


@dataclasses.dataclass(frozen=True)
class Rows:
    """The training examples, as far as the solver knows them.

    Attributes:
        blocks: all blocks of all modalities.
        present: bool [N, M]: which modalities each example has.
        targets: 0 and 1, float32 [N, L].
        weights: float32 [N]; 1 on average.
        multi_label: whether labels are independent of each other.
        folds: int [N]: in which fold each example is held out.
    """

    blocks: Sequence[Block]
    present: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    multi_label: bool
    folds: np.ndarray

    def with_any(self, modalities: Sequence[int]) -> np.ndarray:
        """The examples, int, that have at least one of the modalities."""
        return np.flatnonzero(self.present[:, list(modalities)].any(axis=1))

    def problem(self, used: np.ndarray, features: np.ndarray | None = None) -> Problem:
        """The regression problem of some examples, int [n], with features float32 [n, m], or None where these do not matter."""
        features = np.empty((len(used), 0), np.float32) if features is None else features
        return Problem(features, self.targets[used], self.weights[used], self.multi_label)


def make_blocks(
    features: FeatureSpec,
    inputs: Mapping[str, np.ndarray],
    widths: Mapping[str, Sequence[int]],
    words: Mapping[str, Words] | None = None,
) -> tuple[list[Block], dict[str, Words]]:
    """Makes the blocks of some examples, in the order in which the model's fusion joins them.

    Args:
        features: the features that the model was built for.
        inputs: the outputs of its encoders, the tokens and the presence flags, by name: "image_encoded" float32 [N, D],
            "title_token_ids" int [N, T], "title_padding_mask" bool [N, T], "title_present" bool [N], …
        widths: modality -> the widths of the blocks of its encoder, see `embedding_widths`.
        words: the words that each field tells apart; None: they are learned from these examples.

    Returns:
        (the blocks; text field -> its words, for each field that is seen as tokens).
    """
    blocks, learned = [], {}
    for number, modality in enumerate(features.modalities):
        is_present = inputs[present(modality)]
        parts = np.split(inputs[part_name(modality, "encoded")], np.cumsum(widths[modality])[:-1], axis=1)
        for index, values in enumerate(parts, start=1):
            name = modality if len(parts) == 1 else f"{modality} {index}"
            blocks.append(Block(name, number, unit_rows(values) * is_present[:, None]))
        text = features.text(modality) if modality != IMAGE else None
        if isinstance(text, TokenText):
            ids, mask = (inputs[name] for name in text.batch_names().values())
            mask = mask & is_present[:, None]
            field_words = words[modality] if words else Words.learn(ids, mask, len(text.tokenizer.vocabulary))
            learned[modality] = field_words
            blocks.append(Block(f"{modality} words", number, field_words.bags(ids, mask)))
    return blocks, learned


def make_folds(features: FeatureSpec, inputs: Mapping[str, np.ndarray], labels: np.ndarray, seed: int) -> np.ndarray:
    """Stratified folds of examples, int [N]; those with the same picture, or with the same texts, are in one fold.

    Args:
        features, inputs: as for `make_blocks`.
        labels: int [N], or 0 and 1 [N, L].
        seed: another seed gives other folds.

    Raises:
        ValueError: if all examples are the same.
    """
    kinds = [[IMAGE]] if features.image else []
    kinds += [[text.name for text in features.texts]] if features.texts else []
    keys = []
    for modalities in kinds:
        joined = np.concatenate([inputs[part_name(modality, "encoded")] for modality in modalities], axis=1)
        is_present = np.any([inputs[present(modality)] for modality in modalities], axis=0)
        _, codes = np.unique([row.tobytes() for row in joined], return_inverse=True)
        keys.append(np.where(is_present, codes, -1))
    groups = group_duplicates(keys, most=max(2, len(labels) // _PLACEHOLDER))
    num_groups = int(groups.max()) + 1
    if num_groups < 2:
        raise ValueError(f"solving needs at least two different examples; there are {len(labels)}, all with the same inputs")
    return assign_folds(labels, groups, min(_FOLDS, num_groups), seed)
