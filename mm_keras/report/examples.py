"""The examples of a split as a reader sees them: ids, labels, texts, sizes, and their pictures when they are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from mm_keras.data.record_index import read_index
from mm_keras.features import IMAGE, FeatureSpec
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.schema import TEXT_PREFIX, decode_example
from tfrecords_tools.dataset.shards import read_record


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The labelled examples of a split, in their order; all of them where none has a label.

    Attributes:
        split: the split.
        name: what a page calls it.
        ids: strings [N].
        labels: int32 [N], or float32 [N, L] of several labels an example; None where there are none.
        texts: modality -> texts [N], "" where there is none; of several texts of a field the first.
        sizes: int [N, 2], height and width of the pictures, 0 where there is none.
    """

    split: Split
    name: str
    ids: Sequence[str]
    labels: np.ndarray | None
    texts: dict[str, list[str]]
    sizes: np.ndarray
    _places: Sequence[tuple[str, int]]

    @classmethod
    def of_split(cls, split: Split, features: FeatureSpec, limit: int | None = None, name: str | None = None) -> Examples:
        """Reads the index of a split.

        Args:
            split: the split.
            features: what the model takes in.
            limit: only so many examples, the first ones.
            name: what a page calls it; None: by the split's own name.
        """
        columns = ["id", "shard", "offset", "label/ids", "image/height", "image/width"]
        fields = {text.name: TEXT_PREFIX + text.field for text in features.texts}
        labelled = has_labels(split)
        index, _ = read_index(split, [*columns, *fields.values()], labelled_only=split.num_labelled > 0)
        index = index.slice(0, limit)
        label_ids = index["label/ids"].to_pylist()
        labels = None
        if labelled and features.multi_label:
            labels = np.zeros((len(label_ids), len(features.labels)), np.float32)
            for row, ids in zip(labels, label_ids, strict=True):
                row[ids] = 1
        elif labelled:
            labels = np.array([ids[0] for ids in label_ids], np.int32)
        texts = {field: [(values or [""])[0] for values in index[column].to_pylist()] for field, column in fields.items()}
        sizes = np.stack([index[column].to_numpy() for column in ("image/height", "image/width")], axis=1).astype(np.int64)
        places = list(zip(index["shard"].to_pylist(), index["offset"].to_pylist(), strict=True))
        return cls(split, name or split.name, index["id"].to_pylist(), labels, texts, sizes, places)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, row: int) -> bytes:
        """The encoded picture of an example, b"" if there is none."""
        shard, offset = self._places[row]
        return decode_example(read_record(self.split.dataset.folder / shard, offset)).image if self.sizes[row].any() else b""

    def raw(self, rows: Iterable[int], modalities: Sequence[str]) -> dict[str, list[bytes]]:
        """Some examples as a client has them: modality -> encoded pictures or texts in UTF-8."""
        rows = list(rows)
        return {
            modality: [self.image(row) if modality == IMAGE else self.texts[modality][row].encode() for row in rows]
            for modality in modalities
        }


def has_labels(split: Split) -> bool:
    """Whether any example of a split has a label."""
    return split.num_labelled > 0 and sum(split.label_counts) > 0
