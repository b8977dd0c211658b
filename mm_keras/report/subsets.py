"""Sets of inputs: which are shown, what they are called, and what each input contributes (Shapley values).

A set of M inputs is an integer whose bit m says whether input m is shown: 0 shows nothing, 2^M - 1 everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mm_keras.features import ALL_INPUTS, ALL_TEXTS, IMAGE

MOST_INPUTS = 6  # up to so many, every set of inputs is looked at: 64 sets
NOTHING = "nothing"


def all_subsets(num_inputs: int) -> list[int]:
    """All sets, from none of the inputs to all of them. Of more than 6 inputs: none, each alone, all but one, and all."""
    everything = (1 << num_inputs) - 1
    if num_inputs <= MOST_INPUTS:
        return list(range(everything + 1))
    alone = [1 << number for number in range(num_inputs)]
    return [0, *alone, *(everything & ~single for single in alone), everything]


def with_texts(subsets: Sequence[int], modalities: Sequence[str]) -> list[int]:
    """The given sets and the set of all texts, smaller ones first."""
    return sorted({*subsets, texts_of(modalities)}, key=lambda subset: (subset.bit_count(), subset))


def texts_of(modalities: Sequence[str]) -> int:
    """The set of all texts."""
    return sum(1 << number for number, modality in enumerate(modalities) if modality != IMAGE)


def shown_in(subset: int, num_inputs: int) -> np.ndarray:
    """bool [M]: which inputs are in the set."""
    return np.array([bool(subset >> number & 1) for number in range(num_inputs)])


def subset_name(subset: int, modalities: Sequence[str]) -> str:
    """What a set is called: "image", "image + title", "all texts", "all inputs", "nothing".

    Example:
        >>> [subset_name(subset, ("image", "title", "text")) for subset in (1, 3, 6, 7, 0)]
        ['image', 'image + title', 'all texts', 'all inputs', 'nothing']
    """
    if subset == 0:
        return NOTHING
    if subset == (1 << len(modalities)) - 1 and len(modalities) > 1:
        return ALL_INPUTS
    if subset == texts_of(modalities) and subset.bit_count() > 1:
        return ALL_TEXTS
    return " + ".join(modality for number, modality in enumerate(modalities) if subset >> number & 1)


def shapley_values(values: np.ndarray) -> np.ndarray:
    """The exact Shapley values of M inputs: how much of an answer is owed to each of them.

    Each input gets the mean, over all orders in which the inputs could be shown, of what it changes when its turn comes. The
    values add up to the answer with everything, less the answer with nothing.

    Args:
        values: float [2^M, …], the answer with each set of inputs.

    Returns:
        float [M, …].

    Reference: Shapley, "A value for n-person games", 1953, equation 13.

    Example:
        >>> shapley_values(np.array([0.1, 0.4, 0.2, 0.9])).round(3).tolist()  # nothing, the first, the second, both
        [0.5, 0.3]
    """
    num_inputs = len(values).bit_length() - 1
    if len(values) != 1 << num_inputs:
        raise ValueError(f"Shapley values need the answer with each of 2^M sets. Received: {len(values)} answers")
    contributions = np.zeros((num_inputs, *values.shape[1:]))
    orders = math.factorial(num_inputs)
    for subset in range(len(values)):
        size = subset.bit_count()
        for number in range(num_inputs):
            if not subset >> number & 1:
                share = math.factorial(size) * math.factorial(num_inputs - size - 1) / orders
                contributions[number] += share * (values[subset | 1 << number] - values[subset])
    return contributions
