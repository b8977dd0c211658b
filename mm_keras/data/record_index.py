"""Reads the index of a dataset, which has the labels and texts of all records without their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute

from tfrecords_tools.dataset.checksums import check
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.dataset.index import index_file
from tfrecords_tools.dataset.info import DATASET_FILE
from tfrecords_tools.dataset.shards import CorruptShardError


def read_index(split: Split, columns: Sequence[str], labelled_only: bool = True) -> tuple[pa.Table, list[int]]:
    """Reads some columns of the index, for the labelled records of a split.

    Args:
        split: the split.
        columns: names of columns, "label/ids" among them.
        labelled_only: leave out records without a label, except in multi-label data, where no label means that none applies.

    Returns:
        (a table with a row for each record that is read, in their order; the number of these records in each shard).

    Raises:
        FileNotFoundError: if the dataset was packed by a version that wrote no index.
        CorruptShardError: if an index file cannot be read, or has not a row for each record.
        DamagedFileError: if a file of the index is not what was written.
    """
    import pyarrow.parquet as pq  # the import takes a moment, and predictions do without it

    check(*(split.dataset.folder / index_file(shard.file) for shard in split.shards))
    tables = []
    for shard in split.shards:
        path = split.dataset.folder / index_file(shard.file)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: pack the dataset again")
        try:
            table = pq.read_table(path, columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise CorruptShardError(f"{path} is damaged: {error}. {split.how_to_mend()}") from error
        if len(table) != shard.num_examples:
            raise CorruptShardError(
                f"{path} is damaged: {len(table):,} rows, {DATASET_FILE} says {shard.num_examples:,}. {split.how_to_mend()}"
            )
        if labelled_only and not split.dataset.info.multi_label:  # in multi-label data, no label means that none applies
            table = table.filter(pa.compute.greater(pa.compute.list_value_length(table["label/ids"]), 0))
        tables.append(table)
    return pa.concat_tables(tables), [len(table) for table in tables]
