"""Compares what an exported model answers in a fresh process with what the trained model answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from mm_keras.features import IMAGE, FeatureSpec, present, safe_name
from mm_keras.model.late_fusion import fused_models
from mm_keras.model.split_at_embeddings import build_embedder
from mm_keras.objectives.metrics import probabilities_of
from mm_keras.runs.fresh_process import Question
from mm_keras.runs.serving import DEFAULT, EMBED, TENSORS, signature_names


class ParityError(RuntimeError):
    """The exported model answers differently from the trained one; nothing was exported."""


class ParityCheck:
    """Questions to an exported model, and what the trained model says to them.

    `serving_default` is asked with all records at once, with the first one alone, and with all of them showing each set of
    inputs in turn. Each other signature is asked with the records that show its inputs; one that takes pictures is asked with
    a single record, since what reads pictures takes a second to start, for each signature, and for batches and single examples
    apart.

    Args:
        features: what the model takes in.
        raw: what a client would send: for each input by its `safe_name`, the bytes of N records.
    """

    def __init__(self, features: FeatureSpec, raw: Mapping[str, Sequence[bytes]]):
        self._features = features
        self._raw = raw
        self._keys = [safe_name(modality) for modality in features.modalities]
        names = signature_names(features.modalities)
        self._signatures = list(names)
        self._sets = [frozenset(keys) for keys in names.values()]
        self.num_records = len(raw[self._keys[0]])
        # The set of inputs that each record shows in the questions about sets.
        self._shown = [self._sets[row % len(self._sets)] for row in range(self.num_records)]

    def questions(self, inputs: Mapping[str, np.ndarray], signatures: Sequence[str]) -> list[Question]:
        """The questions to an export with these signatures; `inputs` are the features of the records as a batch of N."""
        hidden = {
            key: [value if key in shown else b"" for value, shown in zip(self._raw[key], self._shown, strict=True)]
            for key in self._keys
        }
        questions = [
            Question(DEFAULT, {key: list(self._raw[key]) for key in self._keys}),
            Question(DEFAULT, {key: list(self._raw[key])[:1] for key in self._keys}),
            Question(DEFAULT, hidden),
        ]
        for name, rows in self._rows():
            keys = [key for key in self._keys if key in self._sets[self._signatures.index(name)]]
            questions.append(Question(name, {key: [self._raw[key][row] for row in rows] for key in keys}))
        if EMBED in signatures:
            questions.append(Question(EMBED, {key: list(self._raw[key])[:1] for key in self._keys}))
        if TENSORS in signatures:
            questions.append(Question(TENSORS, dict(inputs)))
        return questions

    def difference(
        self, model: keras.Model, inputs: Mapping[str, np.ndarray], signatures: Sequence[str], answers: Sequence[dict]
    ) -> tuple[float, str]:
        """The largest difference between the trained model and the answers to `questions`.

        Returns:
            (that difference; what else is wrong with an answer: other labels, or an error where there is none. "": nothing).
        """
        scores = self._scores(model, inputs)
        flags = {present(name): np.asarray(inputs[present(name)]) for name in self._features.modalities}
        shown = {
            present(name): flags[present(name)] & [safe_name(name) in keys for keys in self._shown]
            for name in self._features.modalities
        }
        shown_scores = self._scores(model, {**inputs, **shown})
        has_input, shows_input = (np.any(list(masks.values()), axis=0) for masks in (flags, shown))
        scores, shown_scores = scores * has_input[:, np.newaxis], shown_scores * shows_input[:, np.newaxis]
        expected = [scores, scores[:1], shown_scores, *(shown_scores[rows] for _, rows in self._rows())]
        difference, problem = 0.0, ""
        for values, answer in zip(expected, answers[: len(expected)], strict=True):
            problem = problem or self._wrong_labels(values, answer)
            difference = max(difference, _largest(answer["scores"] - values))
        other_answers = list(answers[len(expected) :])
        if EMBED in signatures:
            difference = max(difference, self._compare_embeddings(model, inputs, other_answers.pop(0)))
        if TENSORS in signatures:
            difference = max(difference, _largest((other_answers.pop(0)["scores"] - scores) * has_input[:, np.newaxis]))
        return difference, problem

    def _rows(self) -> list[tuple[str, list[int]]]:
        """For each signature of a set of inputs, the records that it is asked with."""
        rows_of_signatures = []
        for name, keys in zip(self._signatures, self._sets, strict=True):
            rows = [row for row, shown in enumerate(self._shown) if shown == keys]
            if rows:
                rows_of_signatures.append((name, rows[:1] if IMAGE in keys and self._features.image else rows))
        return rows_of_signatures

    def _scores(self, model: keras.Model, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        logits = np.asarray(model({name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()}, training=False))
        return probabilities_of(logits, self._features.multi_label)

    def _wrong_labels(self, scores: np.ndarray, answer: Mapping[str, np.ndarray]) -> str:
        for row, labels, probabilities, error in zip(
            scores, answer["labels"], answer["probabilities"], answer["error"], strict=True
        ):
            if bool(error) == row.any():
                return f"the exported model says {error.decode()!r} where the trained model answers, or the reverse"
            if not error:
                label_scores = [row[self._features.labels.index(label.decode())] for label in labels]
                best_scores = np.sort(row)[::-1][: len(label_scores)]
                if _largest(probabilities - best_scores) > 1e-3 or _largest(probabilities - label_scores) > 1e-3:
                    return f"the exported model's labels {labels.tolist()} are not those of the trained model"
        return ""

    def _compare_embeddings(self, model: keras.Model, inputs: Mapping[str, np.ndarray], answer: Mapping) -> float:
        """The largest difference of an embedding of the first record, as a share of its largest number."""
        if fused_models(model):
            raise ParityError("a late fusion has no embeddings")
        first = {name: value[:1] for name, value in inputs.items()}
        difference = 0.0
        for name, value in build_embedder(model, self._features.modalities)(first, training=False).items():
            value = np.asarray(value, "float32")
            flag = first.get(f"{name.removesuffix('_embedding')}_present", [True])[0]
            scale = max(1.0, float(np.abs(value).max()))
            difference = max(difference, _largest(answer[name] - value * bool(flag)) / scale)
        return difference


def _largest(values: np.ndarray) -> float:
    """The largest absolute value; infinite where one is no number."""
    values = np.abs(np.asarray(values, "float64"))
    return float(np.where(np.isfinite(values), values, np.inf).max(initial=0.0))
