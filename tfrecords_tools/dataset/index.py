"""index/: all that the records say but for their pixels, as one Parquet file a shard.

For those who read no TFRecords: pandas, DuckDB, Croissant. `pandas.read_parquet("data/products/index")` is the whole dataset
as a table. Columns are named like the records' features, and

    split, shard    where the record is
    offset          of the record in the shard, in bytes (`shards.read_record` reads it there)
    labels          names of its labels
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
    """Collects what the records of one shard say; `save` writes it, atomically and the same for the same records."""

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
        """Adds the record that begins at byte `offset` of the shard."""
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
        """The index of the records that were added so far."""
        import pyarrow as pa

        return pa.table(self._columns, self._schema)

    def save(self, folder: Path) -> None:
        """Writes the index into a dataset folder."""
        import pyarrow.parquet as pq

        path = folder / index_file(self._shard)
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as temporary:
            pq.write_table(self.table(), temporary, compression="zstd")


def _utf8(text: str) -> str:
    """The text as it stands in the record, where half of a surrogate pair, which has no UTF-8, became "?"."""
    return text.encode("utf-8", "replace").decode()
