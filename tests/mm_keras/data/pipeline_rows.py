"""What the tests of the pipeline share: the records of two small datasets, and how batches of them are read."""

import numpy as np
import tensorflow as tf

from mm_keras.data.pipeline import make_training_batches
from mm_keras.features import FeatureSpec, ImageSpec, TokenizerSpec, TokenText, safe_name
from tfrecords_tools.dataset.folder import Split

NUM = 105  # examples, of which five have no label
WORDS = tuple(f"t{index}" for index in range(NUM)) + tuple(f"c{index}{which}" for index in range(NUM) for which in "abc")
LABELS = ("a", "b", "c")


def make_spec(image=(16, 16), fields=("title", "caption"), multi_label=False, labels=LABELS):
    words = TokenizerSpec("words", ("[PAD]", "[UNK]", *WORDS))
    texts = tuple(TokenText(field, words, 4) for field in fields)
    return FeatureSpec(ImageSpec(image) if image else None, texts, labels, multi_label)


TEXT_ONLY = make_spec(image=None)


def ids_of(batches, name="title"):
    """The words of a field's first tokens, batch by batch."""
    return [
        [WORDS[index - 2] for index in inputs[f"{safe_name(name)}_token_ids"][:, 0]]
        for inputs, _, _ in batches.dataset.as_numpy_iterator()
    ]


def make_training(folder, features=TEXT_ONLY, batch_size=16, epochs=1, **options):
    return make_training_batches(Split.open(folder, "train"), features, batch_size, epochs, **options)


def assert_equal(first, second):
    batches = zip(first.dataset.as_numpy_iterator(), second.dataset.as_numpy_iterator(), strict=True)
    for one, other in batches:
        for found, expected in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(found, expected)


def assert_contract(batches, features, num_labels=None):
    """Names, dtypes and static shapes are those of `features`, in the pipeline's declaration and in its batches."""
    inputs, labels, weights = batches.dataset.element_spec
    declared = {name: (tuple(spec.shape), spec.dtype.name) for name, spec in inputs.items()}
    assert declared == {name: ((batches.batch_size, *shape), dtype) for name, (shape, dtype) in features.inputs().items()}
    label_shape = (batches.batch_size, num_labels) if num_labels else (batches.batch_size,)
    assert (tuple(labels.shape), labels.dtype.name) == (label_shape, "float32" if num_labels else "int32")
    assert (tuple(weights.shape), weights.dtype) == ((batches.batch_size,), tf.float32)
    number = 0
    for batch in batches.dataset:
        for tensor, spec in zip(tf.nest.flatten(batch), tf.nest.flatten(batches.dataset.element_spec), strict=True):
            assert (tensor.shape, tensor.dtype) == (spec.shape, spec.dtype)
        number += 1
    assert number == batches.dataset.cardinality()
