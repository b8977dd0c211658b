"""Augmentation of training examples, as TensorFlow graph functions. The same seed gives the same result."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from mm_keras.configurable import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFraction, Rate, configurable
from mm_keras.data.images import decode_augmented
from mm_keras.data.pixels import jitter_colors, rand_augment
from mm_keras.features import IMAGE, EmbeddedText, FeatureSpec, ImageSpec, TokenText, present


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The arguments of `make_augmentation`."""

    min_area: float
    mirror: bool
    color_jitter: float
    rand_augment: int
    rand_augment_magnitude: float
    mixup: float
    cutmix: float
    token_dropout: float


@configurable
def make_augmentation(
    min_area: PositiveFraction = 0.35,
    mirror: bool = True,
    color_jitter: Fraction = 0.0,
    rand_augment: NonNegativeInt = 0,
    rand_augment_magnitude: NonNegativeFloat = 9.0,
    mixup: NonNegativeFloat = 0.0,
    cutmix: NonNegativeFloat = 0.0,
    token_dropout: Rate = 0.0,
) -> Augmentation:
    """Collects the options of augmentation.

    Options for images change nothing in a model without an image, and `token_dropout` nothing in one without tokens. A whole
    modality is hidden by `build_two_tower.modality_dropout`, not here.

    Args:
        min_area: area of the smallest random crop, as a fraction of the picture's area, within (0, 1].
        mirror: mirror each picture with probability 1/2; choose False for pictures that contain writing.
        color_jitter: strength within [0, 1] of `pixels.jitter_colors`; 0 switches it off, 0.4 is usual.
        rand_augment: number of operations of `pixels.rand_augment` applied to a picture; 0 switches it off, 2 is usual.
        rand_augment_magnitude: magnitude of these operations, within [0, 10].
        mixup: alpha of MixUp, at least 0; 0 switches it off, 0.2 is usual. See `mix_examples`.
        cutmix: alpha of CutMix, at least 0; 0 switches it off, 1.0 is usual. If both are on, each batch gets one of the two at
            random.
        token_dropout: probability, within [0, 1), of dropping a token; 0.1 is usual. See `drop_tokens`.

    Raises:
        ValueError: for values out of these ranges.

    Example:
        >>> train("data/products", "runs/products", augment=make_augmentation(rand_augment=2, mixup=0.2))
    """
    for name, value, fine, rule in (
        ("min_area", min_area, 0 < min_area <= 1, "within (0, 1]"),
        ("color_jitter", color_jitter, 0 <= color_jitter <= 1, "within [0, 1]"),
        ("rand_augment", rand_augment, rand_augment >= 0 and rand_augment == int(rand_augment), "a number of operations, or 0"),
        ("rand_augment_magnitude", rand_augment_magnitude, 0 <= rand_augment_magnitude <= 10, "within [0, 10]"),
        ("mixup", mixup, mixup >= 0, "at least 0"),
        ("cutmix", cutmix, cutmix >= 0, "at least 0"),
        ("token_dropout", token_dropout, 0 <= token_dropout < 1, "within [0, 1)"),
    ):
        if not fine:
            raise ValueError(f"{name} must be {rule}. Received: {name}={value!r}")
    return Augmentation(min_area, mirror, color_jitter, int(rand_augment), rand_augment_magnitude, mixup, cutmix, token_dropout)


def augmented_image(data: tf.Tensor, spec: ImageSpec, seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Decodes and augments the image of a record.

    Args:
        data: string [], a JPEG.
        spec: size and fit of the result.
        seed: int64 [2].
        augmentation: what to do.

    Returns:
        float32 [*spec.size, 3] within [0, 255].
    """
    image = decode_augmented(data, spec, seed, augmentation.min_area, augmentation.mirror)
    if augmentation.rand_augment:
        seed = tf.random.experimental.stateless_fold_in(seed, 1)
        image = rand_augment(image, seed, augmentation.rand_augment, augmentation.rand_augment_magnitude)
    if augmentation.color_jitter:
        image = jitter_colors(image, tf.random.experimental.stateless_fold_in(seed, 2), augmentation.color_jitter)
    return image


def augment_batch(
    inputs: dict[str, tf.Tensor],
    labels: tf.Tensor,
    weights: tf.Tensor,
    seed: tf.Tensor,
    features: FeatureSpec,
    augmentation: Augmentation,
) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
    """Augments texts, and mixes examples of a batch.

    Args:
        inputs, labels, weights: the batch, whose images are augmented already.
        seed: int64 [2], which no other batch has.
        features: describes the batch.
        augmentation: what to do.

    Returns:
        a batch of the same shapes. Only if examples are mixed, labels become float32 [B, num_labels] in multi-class data, too.
    """
    seeds = tf.random.experimental.stateless_split(seed, len(features.texts) + 1)
    for number, text in enumerate(features.texts):
        if augmentation.token_dropout and isinstance(text, TokenText):
            ids, mask = (text.batch_names()[name] for name in ("token_ids", "padding_mask"))
            marker_ids = [marker for marker in (text.tokenizer.start_id, text.tokenizer.end_id) if marker is not None]
            dropped = drop_tokens(inputs[ids], inputs[mask], seeds[number], augmentation.token_dropout, marker_ids)
            inputs = inputs | dict(zip((ids, mask), dropped, strict=True))
    if features.image and (augmentation.mixup or augmentation.cutmix):
        if not features.multi_label:
            labels = tf.one_hot(labels, len(features.labels))
        return mix_examples(inputs, labels, weights, seeds[-1], features, augmentation.mixup, augmentation.cutmix)
    return inputs, labels, weights


def drop_tokens(
    token_ids: tf.Tensor, padding_mask: tf.Tensor, seed: tf.Tensor, rate: float, kept_ids: list[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Drops tokens at random; later tokens move up: "a red mug" -> "a mug".

    A text that would lose all its tokens keeps all of them.

    Args:
        token_ids: int32 [B, T].
        padding_mask: bool [B, T], True for a token.
        seed: int64 [2].
        rate: probability of dropping a token.
        kept_ids: ids of tokens that are never dropped, such as [CLS] and [SEP].

    Returns:
        (token_ids, padding_mask) of the same shapes.
    """
    fixed = tf.zeros_like(padding_mask)
    for token in kept_ids:
        fixed |= token_ids == token
    kept = padding_mask & (fixed | (tf.random.stateless_uniform(token_ids.shape, seed) >= rate))
    kept = tf.where(tf.reduce_any(kept & ~fixed, axis=1, keepdims=True), kept, padding_mask)
    places = tf.range(token_ids.shape[1])
    order = tf.argsort(tf.where(kept, places, places + token_ids.shape[1]), axis=1)
    return tuple(tf.gather(values, order, batch_dims=1) for values in (tf.where(kept, token_ids, 0), kept))


def mix_examples(
    inputs: dict[str, tf.Tensor],
    labels: tf.Tensor,
    weights: tf.Tensor,
    seed: tf.Tensor,
    features: FeatureSpec,
    mixup: float,
    cutmix: float,
) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
    """Mixes each example with the one before it in the batch, which is a random one since batches are shuffled.

    For each example a share λ is drawn from Beta(α, α). The mixed picture consists of λ parts of the example's own picture and
    1 - λ of the other one's, blended as pixels (MixUp) or pasted as an area (CutMix). Text embeddings are blended as pixels
    are. Tokens cannot be blended: with probability λ all texts of an example, with their presence flags, are its own, else the
    other one's, so that a text fits the mixed labels on average. Labels are blended by the same shares. If one of the two
    examples has no picture, the example stays as it is: a blend with zeros would be a darker picture, not a missing one.

    Args:
        inputs: the model's inputs, with an image among them.
        labels: float32 [B, L], one-hot or multi-hot.
        weights: float32 [B]. Shares in the labels are proportional to the weights, so that the loss is the weighted sum of
            the losses that both examples would have alone.
        seed: int64 [2].
        features: what is in the batch.
        mixup, cutmix: α of each; 0 switches it off. At least one of them is above 0.

    Reference: Zhang et al., "mixup: Beyond Empirical Risk Minimization", equation 1; Yun et al., "CutMix: Regularization
        Strategy to Train Strong Classifiers with Localizable Features", equations 1 and 2.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 5))
    size = weights.shape[0]
    image, both = inputs[IMAGE], inputs[present(IMAGE)] & _other(inputs[present(IMAGE)])

    def share(alpha: float) -> tf.Tensor:
        first, second = (tf.random.stateless_gamma([size], seed, alpha) for seed in seeds[:2])
        return tf.where(both & (first + second > 0), tf.math.divide_no_nan(first, first + second), 1.0)

    def of_pixels() -> tuple[tf.Tensor, tf.Tensor]:
        own_share = share(mixup)
        return _blend(own_share, image, _other(image)), own_share

    def of_areas() -> tuple[tf.Tensor, tf.Tensor]:
        own_share = share(cutmix)
        height, width = image.shape[1:3]
        cut = tf.sqrt(1 - own_share)
        rows, columns = (
            _inside(side, cut, tf.random.stateless_uniform([size], seed))
            for side, seed in ((height, seeds[2]), (width, seeds[3]))
        )
        inside = rows[:, :, tf.newaxis] & columns[:, tf.newaxis]
        mixed = tf.where(inside[..., tf.newaxis], _other(image), image)
        return mixed, 1 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=[1, 2])

    draws = tf.random.stateless_uniform([size + 1], seeds[4])
    if mixup and cutmix:
        mixed, own_share = tf.cond(draws[-1] < 0.5, of_pixels, of_areas)
    else:
        mixed, own_share = of_pixels() if mixup else of_areas()
    mixed_inputs = inputs | {IMAGE: mixed}
    keeps = draws[:-1] < own_share
    for text in features.texts:
        for part in (*text.batch_names().values(), present(text.name)):
            rows = tf.reshape(keeps, [size] + [1] * (inputs[part].shape.rank - 1))
            mixed_inputs[part] = tf.where(rows, inputs[part], _other(inputs[part]))
        if isinstance(text, EmbeddedText):
            name = text.batch_names()["embedding"]
            there = (inputs[present(text.name)] & _other(inputs[present(text.name)]))[:, tf.newaxis]
            mixed_inputs[name] = tf.where(there, _blend(own_share, inputs[name], _other(inputs[name])), mixed_inputs[name])
    mixed_weights = own_share * weights + (1 - own_share) * _other(weights)
    label_share = tf.math.divide_no_nan(own_share * weights, mixed_weights)
    return mixed_inputs, _blend(label_share, labels, _other(labels)), mixed_weights


def _other(values: tf.Tensor) -> tf.Tensor:
    """For each example the values of the one before it in the batch, with which it is mixed."""
    return tf.concat([values[-1:], values[:-1]], axis=0)


def _blend(share: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """share x one + (1 - share) x other, for a share of each example, [B]."""
    share = tf.reshape(share, [-1] + [1] * (one.shape.rank - 1))
    return share * one + (1 - share) * other


def _inside(length: int, part: tf.Tensor, middle: tf.Tensor) -> tf.Tensor:
    """bool [B, length]: True in a stretch around `middle` that is `part` of the length, both [B] within [0, 1]."""
    first, last = (tf.round(length * (middle + side * part / 2)) for side in (-1, 1))
    places = tf.range(length, dtype=tf.float32)
    return (places >= first[:, tf.newaxis]) & (places < last[:, tf.newaxis])
