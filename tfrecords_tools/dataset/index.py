"""The folder index/ of a dataset: everything in the records except the pixels, in one Parquet file for each shard.

It serves programs that do not read TFRecords, such as pandas, DuckDB and Croissant. The whole dataset is one table:
`pandas.read_parquet("data/products/index")`. The columns are named like the records' features. Four more columns are

    split, shard    the split and the shard file that hold the record
    offset          the byte of the shard at which the record begins (`shards.read_record` reads it from there)
    labels          the names of its labels
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tfrecords_tools.dataset.atomic_file import atomic_file
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.schema import TEXT_PREFIX, Record

if TYPE_CHECKING:
    import pyarrow

INDEX_FOLDER = "index"


def index_file(shard: str) -> str:
    """The index of a shard: train-00000-of-00004.tfrecord -> index/train-00000-of-00004.parquet."""
    return f"{INDEX_FOLDER}/{Path(shard).stem}.parquet"


class ShardIndex:
    """Collects the rows of one shard's index; `save` writes them to a Parquet file. Equal records give equal bytes."""

    def __init__(self, split: str, shard: str, text_fields: tuple[str, ...], labels: LabelVocabulary):
        import pyarrow as pa

        self._split, self._shard, self._labels = split, shard, labels
        texts = [(TEXT_PREFIX + field, pa.list_(pa.string())) for field in text_fields]
        self._schema = pa.schema(
            [
                ("id", pa.string()),
                ("split", pa.string()),
                ("shard", pa.string()),
                ("offset", pa.int64()),
                ("image/height", pa.int32()),
                ("image/width", pa.int32()),
                *texts,
                ("labels", pa.list_(pa.string())),
                ("label/ids", pa.list_(pa.int32())),
                ("weight", pa.float32()),
            ]
        )
        self._columns: dict[str, list] = {name: [] for name in self._schema.names}

    def add(self, record: Record, offset: int) -> None:
        """Adds the row of a record that begins at byte `offset` of the shard."""
        row = {
            "id": record.id,
            "split": self._split,
            "shard": self._shard,
            "offset": offset,
            "image/height": record.height,
            "image/width": record.width,
            "labels": [self._labels.names[index] for index in record.label_ids],
            "label/ids": record.label_ids,
            "weight": record.weight,
        }
        texts = {TEXT_PREFIX + field: [_utf8(text) for text in values] for field, values in record.texts.items()}
        for name, value in (row | texts).items():
            self._columns[name].append(value)

    def table(self) -> pyarrow.Table:
        """The rows that were added so far."""
        import pyarrow as pa

        return pa.table(self._columns, self._schema)

    def save(self, folder: Path) -> None:
        """Writes index/<shard>.parquet below the dataset folder, completely or not at all."""
        import pyarrow.parquet as pq

        path = folder / index_file(self._shard)
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as temporary:
            pq.write_table(self.table(), temporary, compression="zstd")


def _utf8(text: str) -> str:
    """The text as the record stores it: half of a surrogate pair cannot be written in UTF-8 and becomes "?"."""
    return text.encode("utf-8", "replace").decode()
