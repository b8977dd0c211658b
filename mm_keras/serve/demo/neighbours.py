"""The training examples whose embeddings are nearest to that of an example."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mm_keras.features import IMAGE, FeatureSpec, safe_name
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import EMBED
from mm_keras.serve.model_version import ModelVersion
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_records

_MOST = 1000
_BATCH = 32


class Known(NamedTuple):
    """A training example: its id, its inputs by their keys, the names of its labels."""

    id: str
    inputs: dict[str, bytes]
    labels: list[str]


class Neighbours:
    """Embeds training examples of a run on a thread of its own, and finds the nearest ones when that is done.

    Args:
        version: the exported model, which has the signature `embed`.
        run: the run folder that it came from; its dataset must be there.

    Attributes:
        done: how many examples are embedded.
    """

    def __init__(self, version: ModelVersion, run: RunFolder):
        self._version = version
        self._split = run.dataset(None).split("train")
        self._known: list[Known] = []
        self._vectors: np.ndarray | None = None
        self.done = 0
        self.total = min(_MOST, self._split.num_examples)
        threading.Thread(target=self._embed_all, name="neighbours", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether all of them are embedded."""
        return self._vectors is not None

    def find(self, vector: np.ndarray, count: int = 5) -> list[tuple[Known, float]]:
        """The examples whose embeddings have the largest cosines with a vector, and these."""
        cosines = self._vectors @ _unit(vector[np.newaxis])[0]
        return [(self._known[index], float(cosines[index])) for index in np.argsort(-cosines)[:count]]

    def _embed_all(self) -> None:
        vectors = []
        examples = itertools.islice(iter_known(self._split, self._version.features), _MOST)
        while batch := list(itertools.islice(examples, _BATCH)):
            answer = self._version.run(EMBED, _columns(batch))
            good = [row for row, error in enumerate(answer["error"]) if not error]
            self._known += [batch[row] for row in good]
            vectors.append(_unit(answer["fused"][good]))
            self.done += len(batch)
        if vectors:
            self._vectors = np.concatenate(vectors)


def iter_known(split: Split, features: FeatureSpec) -> Iterator[Known]:
    """The records of a split that have at least one input of a model, as it takes them."""
    names = split.dataset.info.labels.names
    for file in split.files:
        for record in map(decode_example, iter_records(file)):
            inputs = {text.key: (record.texts.get(text.field) or ("",))[0].encode() for text in features.texts}
            inputs |= {IMAGE: record.image} if features.image else {}
            if any(inputs.values()):
                yield Known(record.id, inputs, [names[label] for label in record.label_ids])


def _columns(batch: list[Known]) -> dict[str, Any]:
    columns = {}
    for name in batch[0].inputs:
        columns[safe_name(name)] = np.empty(len(batch), object)
        columns[safe_name(name)][:] = [known.inputs[name] for known in batch]
    return columns


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype("float32")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
