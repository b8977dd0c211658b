"""What a dataset's index/ says of the labelled records of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute

from tfrecords_tools.dataset.index import index_file
from tfrecords_tools.dataset.info import DatasetInfo


def read_index(folder: str | Path, split: str, columns: Sequence[str], multi_label: bool) -> tuple[pa.Table, list[int]]:
    """(the columns, "label/ids" among them, of the labelled records in their order, how many of them each file has)

    Raises:
        FileNotFoundError: if the dataset was packed by a version that wrote no index.
    """
    import pyarrow.parquet as pq  # it takes a moment, and predictions need none

    tables = []
    for shard in DatasetInfo.load(folder).shards(split):
        path = Path(folder) / index_file(shard.file)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: pack the dataset again")
        table = pq.read_table(path, columns=list(columns))
        if not multi_label:  # there, no label says "none of them"
            table = table.filter(pa.compute.greater(pa.compute.list_value_length(table["label/ids"]), 0))
        tables.append(table)
    return pa.concat_tables(tables), [len(table) for table in tables]
