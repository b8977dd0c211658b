"""The training examples whose embeddings are nearest to that of an example."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mm_keras.data.encode_once import CACHE_FOLDER
from mm_keras.features import IMAGE, FeatureSpec, safe_name
from mm_keras.model.split_at_embeddings import build_fusion_of_encoded
from mm_keras.runs.encode_split import encode_split
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import EMBED
from mm_keras.serve.model_version import ModelVersion
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_placed_records, read_record

_log = logging.getLogger("mm_keras.serve")
_MOST, _MOST_CACHED = 1000, 5000  # examples: embedded now, and from the encoders' cached answers
_BATCH = 32


class Known(NamedTuple):
    """A training example: its id, the names of its labels, and where its record is."""

    id: str
    labels: list[str]
    file: Path
    offset: int


class Neighbours:
    """Embeds training examples of a run on a thread of its own, and finds the nearest ones when that is done.

    Where all encoders of the run were frozen and their outputs are cached beside the dataset, these are used, in seconds.

    Args:
        version: the exported model, which has the signature `embed`.
        run: the run folder that it came from; its dataset must be there.

    Attributes:
        done, total: how many examples are embedded so far, and how many will be.
        failed: why they cannot be embedded; "" if they can.
    """

    def __init__(self, version: ModelVersion, run: RunFolder):
        self._version, self._run = version, run
        self._split = run.dataset(None).split(run.facts().get("train_split", "train"))
        self._known: list[Known] = []
        self._vectors: np.ndarray | None = None
        cache = (self._split.dataset.folder / CACHE_FOLDER).is_dir()
        self.is_cached = cache and tuple(run.facts().get("frozen", ())) == version.features.modalities
        self.done, self.failed = 0, ""
        self.total = min(_MOST_CACHED if self.is_cached else _MOST, self._split.num_examples)
        threading.Thread(target=self._work, name="neighbours", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether all examples are embedded."""
        return self._vectors is not None

    def find(self, vector: np.ndarray, count: int = 5) -> list[tuple[Known, float]]:
        """The examples whose embeddings have the largest cosines with a vector, each with its cosine."""
        cosines = self._vectors @ _unit(vector[np.newaxis])[0]
        return [(self._known[index], float(cosines[index])) for index in np.argsort(-cosines)[:count]]

    def inputs_of(self, known: Known) -> dict[str, bytes]:
        """The inputs of an example, as the model takes them."""
        return _inputs(decode_example(read_record(known.file, known.offset)), self._version.features)

    def _work(self) -> None:
        try:
            self._vectors = _unit(self._from_cache() if self.is_cached else self._embed())
        except Exception as error:  # whatever is wrong with the run, the page goes on
            _log.warning("what is cached of the training examples cannot be used, or they cannot be embedded: %s", error)
            if self.is_cached:
                self.is_cached, self.total, self._known = False, min(_MOST, self._split.num_examples), []
                self._work()
            else:
                self.failed = str(error)

    def _from_cache(self) -> np.ndarray:
        model, features = self._run.load_model()
        (inputs,), _, _ = encode_split(self._run, model, features, self._split)
        self._known = [known for known, _ in itertools.islice(iter_known(self._split, features), self.total)]
        fuse = build_fusion_of_encoded(model, features)
        fusion_inputs = {name: inputs[name][: len(self._known)] for name in fuse.input}
        return fuse.predict(fusion_inputs, batch_size=256, verbose=0)

    def _embed(self) -> np.ndarray:
        vectors = []
        examples = itertools.islice(iter_known(self._split, self._version.features), self.total)
        while batch := list(itertools.islice(examples, _BATCH)):
            answer = self._version.run(EMBED, _columns([inputs for _, inputs in batch]))
            good = [row for row, error in enumerate(answer["error"]) if not error]
            self._known += [batch[row][0] for row in good]
            vectors.append(answer["fused"][good])
            self.done += len(batch)
        return np.concatenate(vectors)


def iter_known(split: Split, features: FeatureSpec) -> Iterator[tuple[Known, dict[str, bytes]]]:
    """The labelled records of a split, in the order in which training counts them, with their inputs."""
    names = split.dataset.info.labels.names
    for file in split.files:
        for offset, data in iter_placed_records(file):
            record = decode_example(data)
            if record.label_ids or features.multi_label:
                yield Known(record.id, [names[label] for label in record.label_ids], file, offset), _inputs(record, features)


def _inputs(record, features: FeatureSpec) -> dict[str, bytes]:
    inputs = {text.key: (record.texts.get(text.field) or ("",))[0].encode() for text in features.texts}
    return inputs | ({IMAGE: record.image} if features.image else {})


def _columns(examples: Sequence[dict[str, bytes]]) -> dict[str, Any]:
    columns = {}
    for name in examples[0]:
        columns[safe_name(name)] = np.empty(len(examples), object)
        columns[safe_name(name)][:] = [example[name] for example in examples]
    return columns


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype("float32")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
