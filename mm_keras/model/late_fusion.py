"""Late fusion: the answers of several whole models are combined into one. Pure Keras.

A model votes where at least one of its inputs is present. Where no input of any model is present, all models vote.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from mm_keras.features import FeatureSpec, present


def build_answers(models: Sequence[keras.Model], features: Sequence[FeatureSpec], inputs: FeatureSpec) -> keras.Model:
    """Runs whole models side by side, in one model that has the inputs of all of them.

    Args:
        models: at least one. They are renamed "model_0", "model_1", … and can be taken out by these names.
        features: the features of each model, in the order of the models.
        inputs: the features of all models together, by `merge_features`.

    Returns:
        model "answers": the inputs of `inputs.inputs()`, by name -> (logits float32 [B, M, num_labels] of M models; bool
        [B, M], True where a model has any of its inputs).
    """
    tensors = {name: keras.Input(shape, dtype=dtype, name=name) for name, (shape, dtype) in inputs.inputs().items()}
    answers, voting = [], []
    for index, (model, spec) in enumerate(zip(models, features, strict=True)):
        model.name = _model_name(index)
        answers.append(model({name: tensors[name] for name in spec.inputs()}))
        voting.append(who_votes([tensors[present(modality)] for modality in spec.modalities]))
    return keras.Model(tensors, (ops.stack(answers, axis=1), ops.stack(voting, axis=1)), name="answers")


def voting_patterns(features: Sequence[FeatureSpec], inputs: FeatureSpec) -> np.ndarray:
    """Which models vote together: a pattern for each set of models that are left to vote where inputs are missing.

    Args:
        features: the features of each model, in the order of the models.
        inputs: the features of all models together.

    Returns:
        bool [P, M] for P patterns of M models; in the first one, all models vote.
    """
    patterns = []
    for num_shown in range(1, len(inputs.modalities) + 1):
        for shown_modalities in itertools.combinations(inputs.modalities, num_shown):
            patterns.append(tuple(any(modality in shown_modalities for modality in spec.modalities) for spec in features))
    return np.array(list(dict.fromkeys(reversed(patterns))))


def build_late_fusion(answers: keras.Model, combination: Combination) -> keras.Model:
    """Combines the answers of several models into one.

    Args:
        answers: a model that `build_answers` built.
        combination: the layer that combines the logits, such as `WeightedSum`.

    Returns:
        model "late_fusion": the same inputs -> logits float32 [B, num_labels].
    """
    return keras.Model(answers.input, combination(*answers.output), name="late_fusion")


def fused_models(model: keras.Model) -> tuple[Combination, list[keras.Model]] | None:
    """The combination of a late fusion and the models whose answers it brings together; None for any other model."""
    combination = next((layer for layer in model.layers if isinstance(layer, Combination)), None)
    if combination is None:
        return None
    return combination, [model.get_layer(_model_name(index)) for index in range(combination.input[0].shape[1])]


def who_votes(flags: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """The presence flags bool [B] of a model's modalities -> bool [B]: a model votes where it has any of its inputs."""
    return ops.any(ops.stack(flags, axis=-1), axis=-1)


def _model_name(index: int) -> str:
    return f"model_{index}"


class Combination(keras.layers.Layer):
    """The base of layers that combine models: [B, M, L] logits of M models and [B, M] votes -> [B, L] logits.

    Such a layer computes in float32, and has one weight that training does not change.

    Args:
        multi_label: whether probabilities are sigmoids of the logits, or else a softmax over the labels.
        values: the values of the weight, whose meaning each subclass describes. None: they are loaded with a saved model.
        shape: the shape of the weight, where `values` is None.
    """

    def __init__(self, multi_label: bool, values: np.ndarray | None = None, shape: Sequence[int] | None = None, **kwargs):
        super().__init__(**{"name": "combination"} | kwargs | {"dtype": "float32", "trainable": False})
        self.multi_label = multi_label
        self.values = self.add_weight(shape=tuple(shape or values.shape), initializer="ones", trainable=False, name="values")
        if values is not None:
            self.values.assign(values)

    def compute_output_shape(self, logits_shape, voting_shape):
        return (logits_shape[0], logits_shape[2])

    def get_config(self):
        return {**super().get_config(), "multi_label": self.multi_label, "shape": self.values.shape}


@keras.saving.register_keras_serializable(package="mm_keras")
class WeightedSum(Combination):
    """The weighted sum of probabilities: p = sum_m lambda_m p_m. The lambdas of the models that vote are scaled to a sum of 1.

    It is computed from logarithms, so that no probability is clipped. Where lambdas differ between labels, the probabilities
    of multi-class models no longer sum to 1; the softmax of these logits scales them.

    Values: the lambdas, above 0: [M, 1], or [M, L] where they differ between labels.

    Reference: the multi-label caption study, equation 3.
    """

    def call(self, logits, voting):
        log_lambdas = ops.log(_shares(self.values, voting))  # -inf for a model that does not vote
        if not self.multi_label:
            return ops.logsumexp(log_lambdas + ops.log_softmax(logits), axis=1)
        yes, no = (ops.logsumexp(log_lambdas + ops.log_sigmoid(signed), axis=1) for signed in (logits, -logits))
        return yes - no


@keras.saving.register_keras_serializable(package="mm_keras")
class MajorityVote(Combination):
    """The majority vote: p = (votes + mean probability / 2) / (voters + 1/2). The mean decides ties, and overrules no vote.

    A multi-class model votes for its most probable label, a multi-label model for every label above its threshold. In the mean
    of multi-label models, probabilities are shifted so that every threshold is at 0.5.

    Values: the logits [M, L] of the thresholds; zeros, which stand for 0.5, for multi-class models.
    """

    def call(self, logits, voting):
        logits = logits - self.values
        if self.multi_label:
            votes, probabilities = ops.cast(logits > 0, "float32"), ops.sigmoid(logits)
        else:
            votes = ops.one_hot(ops.argmax(logits, axis=-1), self.values.shape[1], dtype="float32")
            probabilities = ops.softmax(logits)
        voters = _voters(voting)
        num_voters = ops.sum(voters, axis=1)
        yes = ops.sum(voters * (votes + probabilities / (2 * ops.expand_dims(num_voters, 1))), axis=1)
        if not self.multi_label:
            return ops.log(ops.maximum(yes, 1e-30))
        no = num_voters + 0.5 - yes
        return ops.log(ops.maximum(yes, 1e-7)) - ops.log(ops.maximum(no, 1e-7))


@keras.saving.register_keras_serializable(package="mm_keras")
class Stacking(Combination):
    """A logistic layer over the models' answers, label by label: z = bias + sum_m weight_m x_m.

    The answers x are log-probabilities (multi-class) or logits (multi-label). Each pattern of voting models has weights of its
    own.

    Args:
        patterns: bool [P, M], of `voting_patterns`. The first one, in which all vote, is also used where none votes.

    Values: [P, M + 1, L]: the weights of the M models, 0 for one that does not vote, and in the last row the bias.

    Reference: the multi-label caption study proposes such a layer. That weights should not be negative is shown by Breiman,
    "Stacked Regressions" (1996), section 3.
    """

    def __init__(self, multi_label: bool, values: np.ndarray | None = None, patterns: Sequence = (), **kwargs):
        super().__init__(multi_label, values, **kwargs)
        self.patterns = np.asarray(patterns, bool).tolist()

    def call(self, logits, voting):
        scores = logits if self.multi_label else ops.log_softmax(logits)
        is_pattern = ops.all(ops.equal(ops.expand_dims(voting, 1), ops.convert_to_tensor(self.patterns)), axis=-1)  # [B, P]
        values = ops.take(self.values, ops.argmax(ops.cast(is_pattern, "int32"), axis=-1), axis=0)
        return values[:, -1] + ops.sum(values[:, :-1] * scores, axis=1)

    def get_config(self):
        return {**super().get_config(), "patterns": self.patterns}


def _shares(weights, voting):
    """[M, K] weights above 0 and [B, M] votes -> [B, M, K]: the weights of the voting models, scaled to a sum of 1 over M."""
    weights = _voters(voting) * weights
    return weights / ops.sum(weights, axis=1, keepdims=True)


def _voters(voting):
    """[B, M] flags -> float32 [B, M, 1]: 1 for a model that votes. All vote where no flag is True."""
    voting = ops.logical_or(voting, ops.logical_not(ops.any(voting, axis=1, keepdims=True)))
    return ops.expand_dims(ops.cast(voting, "float32"), -1)
