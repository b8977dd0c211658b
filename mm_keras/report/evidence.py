"""What the sections of a report are made of: a run's answers to a split, each computed when a section first asks for it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mm_keras.features import present
from mm_keras.report.examples import Examples
from mm_keras.report.loaded_run import Inputs, LoadedRun
from mm_keras.report.measures import is_right, multi_hot, predicted_labels
from mm_keras.report.subsets import all_subsets, shown_in, with_texts
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.folder import Split

_MOST_PROBABILITIES = 100_000_000  # examples x labels that are answered
_FEWEST_EXAMPLES = 1_000
_MOST_ANSWERS = 60_000_000  # examples x labels x sets of inputs that are kept
_MOST_TRAINED = 20_000  # training examples that are looked at, where their embeddings are cached
_MOST_ENCODED = 2_000  # training examples that are looked at, where their embeddings have to be computed
_LETTERS = 400  # of a text that are shown


class Evidence:
    """A loaded run and a split to report on.

    Args:
        loaded: the run.
        split: the split; it may be without labels.
        seed: of all samples.

    Attributes:
        examples: the split's examples; where examples x labels are too many, the first ones, which are a random sample.
        labels: int [N], or 0/1 [N, L]; None without labels.
        names: the names of the labels.
        multi_label: whether an example may have any number of labels.
        modalities: the model's inputs.
    """

    def __init__(self, loaded: LoadedRun, split: Split, seed: int = 0):
        self.loaded, self.split, self.seed = loaded, split, seed
        self.features, self.modalities = loaded.features, loaded.modalities
        self.names, self.multi_label = list(loaded.features.labels), loaded.features.multi_label
        most = max(_FEWEST_EXAMPLES, _MOST_PROBABILITIES // len(self.names))
        self.examples = Examples.of_split(split, loaded.features, most)
        self.labels = self.examples.labels

    def __len__(self) -> int:
        return len(self.examples)

    @functools.cached_property
    def inputs(self) -> Inputs:
        """The encoded examples."""
        return self.loaded.encode(self.split, len(self))

    @functools.cached_property
    def present(self) -> np.ndarray:
        """bool [N, M]: which inputs each example has."""
        return np.stack([self.inputs[present(modality)] for modality in self.modalities], axis=1).astype(bool)

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """The answers with all inputs, float32 [N, L]."""
        return self.loaded.probabilities(self.inputs)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """The predicted labels, bool [N, L]."""
        return predicted_labels(self.probabilities, self.multi_label, self.loaded.thresholds)

    @functools.cached_property
    def true(self) -> np.ndarray:
        """The given labels, bool [N, L]."""
        return multi_hot(self.labels, len(self.names))

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """How sure the answers are, float [N]: the best probability; of several labels the mean of max(p, 1 - p)."""
        if self.multi_label:
            return np.maximum(self.probabilities, 1 - self.probabilities).mean(axis=1)
        return self.probabilities.max(axis=1)

    @functools.cached_property
    def right(self) -> np.ndarray:
        """Which answers are right, bool [N]."""
        return is_right(self.probabilities, self.labels, self.multi_label, self.loaded.thresholds)

    @functools.cached_property
    def subsets(self) -> list[int]:
        """The sets of inputs that are looked at, smaller ones first."""
        return with_texts(all_subsets(len(self.modalities)), self.modalities)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """The examples that are answered with every set of inputs: all of them, or a sample where that would be too much."""
        number = max(100, _MOST_ANSWERS // (len(self.subsets) * len(self.names)))
        if number >= len(self):
            return np.arange(len(self))
        return np.sort(np.random.default_rng(self.seed).choice(len(self), number, replace=False))

    @functools.cached_property
    def answers(self) -> dict[int, np.ndarray]:
        """Set of inputs -> probabilities float32 [n, L] of `rows`."""
        inputs = {name: array[self.rows] for name, array in self.inputs.items()}
        everything = (1 << len(self.modalities)) - 1
        return {
            subset: self.probabilities[self.rows]
            if subset == everything
            else self.loaded.probabilities(inputs, shown_in(subset, len(self.modalities)))
            for subset in self.subsets
        }

    @functools.cached_property
    def embeddings(self) -> Inputs:
        """The spaces of `LoadedRun.embeddings`, for the split."""
        return self.loaded.embeddings(self.inputs)

    @functools.cached_property
    def train(self) -> TrainingData | None:
        """The training examples, or a sample of them; None if their dataset is not there, or they are the split itself."""
        facts = self.loaded.run.facts()
        name = facts.get("train_split", "train")
        try:
            split = self.loaded.run.dataset(None).split(name)
        except (FileNotFoundError, ValueError):
            return None
        if split.dataset.folder.resolve() == self.split.dataset.folder.resolve() and split.name == self.split.name:
            return None
        return TrainingData(self.loaded, split, split.name if split.name != self.split.name else f"{split.name} (training)")

    def baselines(self) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """Modality -> the probabilities [N, L] and the thresholds of the baseline that was trained on it alone."""
        answers = {}
        for folder in sorted(self.loaded.run.baselines.glob("*/")):
            loaded = LoadedRun(folder)
            answers[" + ".join(loaded.modalities)] = (
                loaded.probabilities(loaded.encode(self.split, len(self))),
                loaded.thresholds,
            )
        return answers

    def describe(self, row: int, **more) -> dict:
        """An example, as JSON values: ids, given and predicted labels, texts, and where its picture is."""
        return describe(self.examples, row, self.names) | {
            "predicted": self.names_of(self.predicted[row]),
            "probability": float(self.confidence[row]),
            **({"right": bool(self.right[row])} if self.labels is not None else {}),
            **more,
        }

    def describe_all(self, rows: Iterable[int]) -> list[dict]:
        return [self.describe(int(row)) for row in rows]

    def names_of(self, labels: np.ndarray) -> list[str]:
        """The names of the labels that are True in `labels`, bool [L]."""
        return [self.names[index] for index in np.flatnonzero(labels)]


class TrainingData:
    """The training examples that a split is compared with.

    Attributes:
        examples: the first ones of them, in an order that is random.
        is_sample: whether there are more.
    """

    def __init__(self, loaded: LoadedRun, split: Split, name: str):
        self._loaded, self.split = loaded, split
        self.limit = _MOST_TRAINED if loaded.is_cached(split) else _MOST_ENCODED
        self.examples = Examples.of_split(split, loaded.features, self.limit, name)
        self.is_sample = len(self.examples) < (split.num_labelled or split.num_examples)

    @functools.cached_property
    def embeddings(self) -> Inputs:
        return self._loaded.embeddings(self._loaded.encode(self.split, self.limit))


def describe(examples: Examples, row: int, names: Sequence[str]) -> dict:
    """An example without the model's answer, as JSON values."""
    labels = examples.labels
    label_ids = np.flatnonzero(multi_hot(labels[row : row + 1], len(names))[0]) if labels is not None else []
    return {
        "id": str(examples.ids[row]),
        "split": examples.name,
        "row": int(row),
        "given": [names[index] for index in label_ids],
        "texts": {name: _shortened(texts[row]) for name, texts in examples.texts.items()},
        "has_image": bool(examples.sizes[row].any()),
    }


def load_evidence(run: str | Path, dataset: str | Path | None, split: str) -> Evidence:
    """Loads a run, and opens the split to report on."""
    measured = RunFolder(run).dataset(dataset).split(split)
    return Evidence(LoadedRun(run), measured)


def _shortened(text: str) -> str:
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"
