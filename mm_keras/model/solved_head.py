"""The parts of a model whose head was solved and not trained: the blocks of its embeddings, their fusion, the head. Pure Keras.

They have the names that `build_two_tower` gives, so that evaluation, export and late fusion cut a solved model as any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import keras
import numpy as np
from keras import ops

from mm_keras.features import present, safe_name


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The votes of landmarks, which are training examples that the head keeps, for their labels.

    The nearest landmark has one vote; each other one has the part of a vote that its kernel is of the nearest one's kernel.

    Attributes:
        kernel: the number of the kernel.
        voters: float32 [K]: the weight of each landmark's vote; 0 for a landmark that does not vote.
        prior: float32 [num_labels], within (0, 1): the share of each label among all training examples.
        pull: how many votes the prior has.
    """

    kernel: int
    voters: np.ndarray
    prior: np.ndarray
    pull: float


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Gaussian kernels: exp(-gamma x the mean, over some blocks, of the squared distance to a landmark).

    Attributes:
        landmarks: number of a block -> float32 [K, D], the block of each landmark; all kernels have the same landmarks.
        kernels: for each kernel (the numbers of its blocks, gamma, which is above 0).
        targets: 0 and 1, float32 [K, num_labels], the labels of the landmarks; None without neighbours.
        neighbours: the votes of landmarks, each by one of the kernels.
    """

    landmarks: Mapping[int, np.ndarray]
    kernels: Sequence[tuple[tuple[int, ...], float]]
    targets: np.ndarray | None = None
    neighbours: Sequence[Neighbours] = ()


@dataclasses.dataclass(frozen=True)
class Answer:
    """How a solved head computes the logits of examples that have certain modalities: a sum of the terms below.

    Attributes:
        modalities: the modalities that it reads, by their numbers.
        linear: number of a block -> the weights of the block, float32 [D, num_labels].
        kernels: number of a kernel -> the weights of its landmarks, float32 [K, num_labels].
        neighbours: index in `Kernels.neighbours` -> the factors of the logits of these votes, float32 [num_labels].
        bias: float32 [num_labels].
    """

    modalities: tuple[int, ...]
    linear: Mapping[int, np.ndarray]
    kernels: Mapping[int, np.ndarray]
    neighbours: Mapping[int, np.ndarray]
    bias: np.ndarray


@keras.saving.register_keras_serializable(package="mm_keras")
class UnitBlocks(keras.layers.Layer):
    """[B, D] -> [B, D]: each of the blocks that an embedding consists of is scaled to a length of 1; zeros stay zeros.

    Args:
        widths: the widths of the blocks, whose sum is D.
    """

    def __init__(self, widths: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.widths = tuple(widths)

    def call(self, embedding):
        places = np.cumsum(self.widths)[:-1].tolist()
        blocks = ops.split(embedding, places, axis=-1) if places else [embedding]
        return ops.concatenate([_unit(block) for block in blocks], axis=-1)

    def compute_output_shape(self, embedding_shape):
        return embedding_shape

    def get_config(self):
        return {**super().get_config(), "widths": self.widths}


@keras.saving.register_keras_serializable(package="mm_keras")
class WeightedBag(keras.layers.Layer):
    """[B, T] token ids and padding mask -> [B, columns]: a bag of words, weighted by how rare they are, of length 1.

    Tokens that no example of the training had are left out. The weights `column_of` and `rarity` are not trained.

    Reference: Salton and Buckley, "Term-weighting approaches in automatic text retrieval" (1988), with binary term frequencies.

    Args:
        vocabulary: the size of the tokenizer's vocabulary.
        columns: the number of tokens that are told apart.
    """

    def __init__(self, vocabulary: int, columns: int, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary = vocabulary
        self.columns = columns

    def build(self, token_ids_shape, padding_mask_shape):
        self.column_of = self.add_weight(
            shape=(self.vocabulary,), dtype="int32", initializer="zeros", trainable=False, name="column_of"
        )  # 0: the token is left out
        self.rarity = self.add_weight(shape=(self.columns,), initializer="ones", trainable=False, name="rarity")

    def call(self, token_ids, padding_mask):
        count = ops.shape(token_ids)[0]
        columns = ops.where(padding_mask, ops.take(self.column_of, token_ids), 0)
        rows = ops.broadcast_to(ops.arange(count, dtype="int32")[:, None], ops.shape(columns))
        places = ops.reshape(ops.stack([rows, columns], axis=-1), (-1, 2))
        ones = ops.ones_like(places[:, 0], dtype=self.compute_dtype)
        occurs = ops.minimum(ops.scatter(places, ones, (count, self.columns + 1))[:, 1:], 1)
        return _unit(occurs * ops.cast(self.rarity, self.compute_dtype))

    def compute_output_shape(self, token_ids_shape, padding_mask_shape):
        return (token_ids_shape[0], self.columns)

    def get_config(self):
        return {**super().get_config(), "vocabulary": self.vocabulary, "columns": self.columns}


@keras.saving.register_keras_serializable(package="mm_keras")
class SolvedAnswers(keras.layers.Layer):
    """[B, sum of the blocks' widths + M]: blocks, then a flag of 0 or 1 a modality -> logits [B, num_labels].

    Each example gets the answer of the modalities that it has, see `Answer`; `pattern_of` says which one that is. The
    centre of each block is subtracted from it first: embeddings of pictures are much alike, and differences of large numbers
    lose digits.

    Args:
        num_labels: how many logits there are.
        widths: the width of each block.
        kernels: for each kernel {"blocks", "gamma"}.
        num_landmarks: K.
        neighbours: for each of `Neighbours` {"kernel", "pull"}.
        multi_label: whether the logits of neighbours are log-odds (True) or logarithms of shares.
        answers: for each answer {"linear": its blocks, "kernels": its kernels, "neighbours": its neighbours}.
        pattern_of: the number of the answer for each set of modalities. The sets are counted as numbers of M bits, of which the
            lowest stands for the first modality.
    """

    def __init__(
        self,
        num_labels: int,
        widths: Sequence[int],
        kernels: Sequence[Mapping],
        num_landmarks: int,
        neighbours: Sequence[Mapping],
        multi_label: bool,
        answers: Sequence[Mapping],
        pattern_of: Sequence[int],
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_labels = num_labels
        self.widths = list(widths)
        self.kernels = [dict(kernel) for kernel in kernels]
        self.num_landmarks = num_landmarks
        self.neighbours = [dict(votes) for votes in neighbours]
        self.multi_label = multi_label
        self.answers = [dict(answer) for answer in answers]
        self.pattern_of = list(pattern_of)
        self._modalities = (len(self.pattern_of) - 1).bit_length()

    def build(self, input_shape):
        def weight(name: str, *shape: int):
            return self.add_weight(shape=shape, initializer="zeros", trainable=False, name=name)

        self.center = weight("center", sum(self.widths))
        read_blocks = sorted({block for kernel in self.kernels for block in kernel["blocks"]})
        self.landmarks = {  # keyed by strings, so that Keras tracks the weights of the dict
            str(block): weight(f"landmarks_{block}", self.num_landmarks, self.widths[block]) for block in read_blocks
        }
        if self.neighbours:
            self.targets = weight("targets", self.num_landmarks, self.num_labels)
        self.voters = [weight(f"voters_{number}", self.num_landmarks) for number in range(len(self.neighbours))]
        self.prior = [weight(f"prior_{number}", self.num_labels) for number in range(len(self.neighbours))]
        self.linear, self.dual, self.vote, self.bias = [], [], [], []
        for number, answer in enumerate(self.answers):
            width = sum(self.widths[block] for block in answer["linear"])
            self.linear.append(weight(f"linear_{number}", width, self.num_labels))
            self.dual.append(
                [weight(f"dual_{number}_{index}", self.num_landmarks, self.num_labels) for index in answer["kernels"]]
            )
            self.vote.append([weight(f"vote_{number}_{index}", self.num_labels) for index in answer["neighbours"]])
            self.bias.append(weight(f"bias_{number}", self.num_labels))

    def call(self, fused):
        width = sum(self.widths)
        values, flags = fused[:, :width] - self.center, fused[:, width:]
        places = np.cumsum(self.widths)[:-1].tolist()
        blocks = ops.split(values, places, axis=-1) if places else [values]
        distances = {block: _squared_distances(blocks[int(block)], landmarks) for block, landmarks in self.landmarks.items()}
        exponents = [
            -kernel["gamma"] / len(kernel["blocks"]) * sum(distances[str(block)] for block in kernel["blocks"])
            for kernel in self.kernels
        ]
        similar = [ops.exp(exponent) for exponent in exponents]
        votes = [self._votes(number, exponents[options["kernel"]]) for number, options in enumerate(self.neighbours)]
        bits = ops.convert_to_tensor([2**bit for bit in range(self._modalities)], dtype="int32")
        pattern = ops.take(
            ops.convert_to_tensor(self.pattern_of, dtype="int32"), ops.sum(ops.cast(flags > 0.5, "int32") * bits, axis=-1)
        )
        total = 0.0
        for number, answer in enumerate(self.answers):
            logits = self.bias[number]
            if answer["linear"]:
                logits = logits + ops.concatenate([blocks[block] for block in answer["linear"]], axis=-1) @ self.linear[number]
            for kernel, dual in zip(answer["kernels"], self.dual[number], strict=True):
                logits = logits + similar[kernel] @ dual
            for index, scale in zip(answer["neighbours"], self.vote[number], strict=True):
                logits = logits + votes[index] * scale
            total = total + ops.cast(pattern == number, "float32")[:, None] * logits
        return total

    def _votes(self, number: int, exponents):
        """Exponents of a kernel [B, K] -> the logits [B, num_labels] of the neighbours with that number."""
        voters, prior, pull = self.voters[number], self.prior[number], self.neighbours[number]["pull"]
        of_voters = ops.where(voters > 0, exponents, -1e9)
        # Relative to the kernel of the nearest landmark, since a kernel itself may be too small for a float.
        votes = ops.exp(of_voters - ops.max(of_voters, axis=-1, keepdims=True)) * voters
        yes = ops.log(votes @ self.targets + pull * prior)
        if self.multi_label:
            return yes - ops.log(votes @ (1 - self.targets) + pull * (1 - prior))
        return yes - ops.log(ops.sum(votes, axis=-1, keepdims=True) + pull)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_labels)

    def get_config(self):
        names = ("num_labels", "widths", "kernels", "num_landmarks", "neighbours", "multi_label", "answers", "pattern_of")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def build_blocks_fusion(shapes: Mapping[str, tuple[int, ...]]) -> keras.Model:
    """Joins the blocks of all modalities, and their presence flags as numbers, for `SolvedAnswers`.

    Args:
        shapes: modality -> (D,).

    Returns:
        model "fusion": {modality: [B, D], "<modality>_present": bool [B]} -> float32 [B, sum of D + number of modalities].
    """
    inputs = {safe_name(modality): keras.Input(shape, name=safe_name(modality)) for modality, shape in shapes.items()}
    flags = {present(modality): keras.Input((), dtype="bool", name=present(modality)) for modality in shapes}
    numbers = [keras.ops.expand_dims(keras.ops.cast(flag, "float32"), -1) for flag in flags.values()]
    joined = keras.layers.Concatenate(dtype="float32", name="blocks")([*inputs.values(), *numbers])
    return keras.Model(inputs | flags, joined, name="fusion")


def build_solved_head(
    widths: Sequence[int],
    num_modalities: int,
    kernels: Kernels,
    answers: Sequence[Answer],
    pattern_of: Sequence[int],
    multi_label: bool,
    centers: Mapping[int, np.ndarray] = MappingProxyType({}),
) -> keras.Model:
    """The head of a solved model.

    Args:
        widths: the width of each block, in the order of the fusion.
        num_modalities: M.
        kernels, answers: the solved kernels, and the answers that read them.
        pattern_of: the number of the answer for each of the 2**M sets of modalities, see `SolvedAnswers`.
        multi_label: whether labels are independent of each other, which matters to neighbours.
        centers: number of a block -> float [D], about the mean of the block. The logits do not depend on it, but for rounding.

    Returns:
        model "head": [B, sum of widths + M] -> logits float32 [B, num_labels].
    """
    layer = SolvedAnswers(
        len(answers[0].bias),
        widths,
        [{"blocks": list(blocks), "gamma": gamma} for blocks, gamma in kernels.kernels],
        max((len(values) for values in kernels.landmarks.values()), default=0),
        [{"kernel": votes.kernel, "pull": votes.pull} for votes in kernels.neighbours],
        multi_label,
        [{name: list(getattr(answer, name)) for name in ("linear", "kernels", "neighbours")} for answer in answers],
        pattern_of,
        trainable=False,
        dtype="float32",
        name="answers",
    )
    inputs = keras.Input((sum(widths) + num_modalities,), name="fused")
    model = keras.Model(inputs, layer(inputs), name="head")
    center = [np.asarray(centers.get(block, np.zeros(width)), np.float32) for block, width in enumerate(widths)]
    layer.center.assign(np.concatenate(center))
    for block, values in kernels.landmarks.items():
        layer.landmarks[str(block)].assign(values - center[block])
    if kernels.neighbours:
        layer.targets.assign(kernels.targets)
    for number, votes in enumerate(kernels.neighbours):
        layer.voters[number].assign(votes.voters)
        layer.prior[number].assign(votes.prior)
    for number, answer in enumerate(answers):
        if answer.linear:
            layer.linear[number].assign(np.concatenate(list(answer.linear.values())))
        for weight, dual in zip(layer.dual[number], answer.kernels.values(), strict=True):
            weight.assign(dual)
        for weight, scale in zip(layer.vote[number], answer.neighbours.values(), strict=True):
            weight.assign(scale)
        subtracted = sum(center[block].astype("float64") @ weights for block, weights in answer.linear.items())
        layer.bias[number].assign(answer.bias + subtracted)
    return model


def _unit(block):
    return block * ops.rsqrt(ops.maximum(ops.sum(ops.square(block), axis=-1, keepdims=True), 1e-12))


def _squared_distances(rows, landmarks):
    """[B, D] and [K, D] -> [B, K], at least 0."""
    squares = ops.sum(ops.square(rows), axis=-1, keepdims=True) + ops.sum(ops.square(landmarks), axis=-1)
    return ops.maximum(squares - 2 * rows @ ops.transpose(landmarks), 0)
