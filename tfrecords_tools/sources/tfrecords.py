"""Datasets that were packed before: re-sharded, filtered, merged, split anew, or joined by id with columns of a table.

    data/products/dataset.json, train-00000-of-00002.tfrecord, …
    weights.csv      id,weight,summary                 --join=weights.csv --join_id=id --weight=weight --text=summary
                     a1,0.5,"A blue mug"

- The bytes of images are kept, and read from the shards when they are packed; only texts pass through the temporary folder.
  `resize` resizes images instead.
- Records keep their id, split, texts, labels and weight. A row of the joined table replaces those for which it has a column.
- Labels keep their numbering. If there are several datasets, the new names of the later ones follow. Of records with equal ids
  the first is packed, unless `prefix_ids` makes ids different: "products/a1".
- A damaged shard is an error, and nothing is packed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from tfrecords_tools.dataset.info import DATASET_FILE, DatasetInfo
from tfrecords_tools.dataset.schema import Record, decode_example
from tfrecords_tools.dataset.shards import iter_placed_records
from tfrecords_tools.sources import table
from tfrecords_tools.sources.command import SourceCommand, comma_list
from tfrecords_tools.sources.disk_index import DiskIndex
from tfrecords_tools.sources.example import RecordImage, Rejection, Source, SourceExample
from tfrecords_tools.sources.files import SourceError, iter_lines


@dataclasses.dataclass(frozen=True)
class Options:
    """Which records of which datasets to pack, and what to change in them.

    Attributes:
        folders: the dataset folders, in order.
        splits: the splits to read; None reads all.
        labels: only records with one of these labels are packed, and they lose all other labels; None keeps all.
        require: only records that have all of these are packed: "image", "label", and text fields.
        ids: a file with an id on each line; only these records are packed. None packs all.
        without_ids: a file with an id on each line; these records are left out. None leaves none out.
        prefix_ids: whether the name of the dataset's folder is put before ids.
        resplit: whether packing draws new splits.
        resize: whether packing resizes images, to the size in its options.
        join: a table whose columns are added to the records, or replace their values; None joins nothing.
        columns: the columns of the joined table. `id` holds ids of records, and `text` names text fields.
        label_separator: splits a label cell of the joined table into several labels; the dataset is then multi-label.
        multi_label: whether label cells of the joined table may hold lists.
        derived_from_label: joined text fields that are computed from the label.
    """

    folders: tuple[Path, ...]
    splits: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    require: tuple[str, ...] = ()
    ids: Path | None = None
    without_ids: Path | None = None
    prefix_ids: bool = False
    resplit: bool = False
    resize: bool = False
    join: Path | None = None
    columns: table.Columns = dataclasses.field(default_factory=table.Columns)
    label_separator: str | None = None
    multi_label: bool = False
    derived_from_label: tuple[str, ...] = ()


def make_source(options: Options) -> Source:
    """Declares datasets as a source. Their dataset.json files and the columns of the joined table are checked here.

    Raises:
        SourceError: if the datasets contradict each other, or an option names what they do not have.
        FileNotFoundError: if a folder holds no dataset.json.

    Example:
        >>> make_source(Options((Path("data/shop_a"), Path("data/shop_b")), prefix_ids=True, require=("image", "title")))
    """
    if not options.folders:
        raise SourceError("name at least one dataset folder")
    infos = [DatasetInfo.load(folder) for folder in options.folders]
    text_fields = _text_fields(infos, options)
    names = list(dict.fromkeys(name for info in infos for name in info.labels.names))
    _check_names("split", options.splits or (), [split for info in infos for split in info.splits])
    _check_names("label", options.labels or (), names)
    _check_names("field", options.require, ["image", "label", *text_fields])
    joined = [column for column in options.columns.named() if column != options.columns.id]
    if bool(options.join) != bool(joined) or bool(options.join) != bool(options.columns.id):
        raise SourceError(
            "a join needs a table (--join), the column with the ids of records (--join_id), and columns to take "
            f"(--text, --label, --weight, --split). Received: {options.join}, {options.columns.id}, {joined}"
        )
    notes = []
    if options.join:
        notes = table.check_table(options.join, options.columns, options.label_separator, options.multi_label)
    if options.labels:
        names = [name for name in names if name in options.labels]
    stored = [info.images for info in infos]
    whole = len(infos) == 1 and not (options.labels or options.require or options.ids or options.without_ids or options.join)
    chosen = {key: value for key, value in dataclasses.asdict(options).items() if not isinstance(value, Path)}
    return Source(
        name="tfrecords",
        examples=lambda: iter_examples(options),
        text_fields=text_fields,
        multi_label=any(info.multi_label for info in infos) or options.multi_label or options.label_separator is not None,
        files=[Path(folder) / DATASET_FILE for folder in options.folders] + ([options.join] if options.join else []),
        options=chosen | {"folders": [Path(folder).name for folder in options.folders]},
        labels=None if options.columns.label else names,
        images=None if options.resize else stored[0] if all(images == stored[0] for images in stored) else {},
        ceilings=infos[0].ceilings if whole else {},
        notes=tuple(notes),
    )


def iter_examples(options: Options) -> Iterator[SourceExample | Rejection]:
    """Yields the chosen records of all datasets as examples, and rejections of rows of the joined table."""
    wanted = {line for _, line in iter_lines(options.ids)} if options.ids else None
    unwanted = {line for _, line in iter_lines(options.without_ids)} if options.without_ids else set()
    with contextlib.ExitStack() as stack:
        join = stack.enter_context(_Join(options)) if options.join else None
        if join:
            yield from join.problems()
        for folder in map(Path, options.folders):
            info = DatasetInfo.load(folder)
            shards = [(split, shard) for split in info.splits for shard in info.shards(split)]
            for split, shard in shards:
                name = shard.file
                if options.splits and split not in options.splits:
                    continue
                for number, (offset, data) in enumerate(iter_placed_records(folder / name, shard.num_examples)):
                    record = decode_example(data)
                    if record.id in unwanted or (wanted is not None and record.id not in wanted):
                        continue
                    image = RecordImage(folder / name, offset, options.resize) if record.image else None
                    example = _example(record, info, image, f"{folder.name}/{name}: record {number}", split)
                    if join:
                        yield from join.apply(example)
                    if _is_wanted(example, options):
                        example.id = f"{folder.name}/{example.id}" if options.prefix_ids else example.id
                        example.split = None if options.resplit else example.split
                        yield example
        if join:
            yield from join.left_over()


def _example(record: Record, info: DatasetInfo, image: RecordImage | None, where: str, split: str) -> SourceExample:
    texts = {field: list(texts) for field, texts in record.texts.items()}
    labels = [info.labels.names[index] for index in record.label_ids]
    return SourceExample(record.id, where, image, texts, labels, split, record.weight)


def _is_wanted(example: SourceExample, options: Options) -> bool:
    """Whether an example passes the filters. Labels that were not chosen are removed from it."""
    if options.labels is not None:
        example.labels = [label for label in example.labels if label in options.labels]
        if not example.labels:
            return False
    present = {"image": example.image, "label": example.labels, **{key: "".join(value) for key, value in example.texts.items()}}
    return all(present.get(field) for field in options.require)


class _Join:
    """The rows of the joined table by the ids of their records, in an index on the disk."""

    def __init__(self, options: Options):
        self._options, self._index = options, DiskIndex()
        self._rows = self._records = self._joined = self._used = 0

    def __enter__(self) -> _Join:
        return self

    def __exit__(self, *_) -> None:
        self._index.__exit__()

    def problems(self) -> Iterator[Rejection]:
        """Reads the table, and yields rejections of the rows that cannot be read."""
        options = self._options
        for row in table.iter_examples(options.join, options.columns, options.label_separator, options.multi_label):
            if isinstance(row, Rejection):
                yield dataclasses.replace(row, action="row not used")
                continue
            self._rows += 1
            self._index.add(row.id, [row.where, row.texts, row.labels, row.split, row.weight])

    def apply(self, example: SourceExample) -> Iterator[Rejection]:
        """Changes an example by the row with its id, and yields rejections of further rows with this id."""
        self._records += 1
        rows = self._index.get(example.id)
        if not rows:
            return
        self._joined += 1
        self._used += len(rows)
        yield from (
            Rejection(example.id, where, "another row has this id; the first is used", "row not used") for where, *_ in rows[1:]
        )
        columns, (_, texts, labels, split, weight) = self._options.columns, rows[0]
        example.texts |= texts
        example.labels = labels if columns.label else example.labels
        example.split = split if columns.split else example.split
        example.weight = weight if columns.weight else example.weight

    def left_over(self) -> Iterator[Rejection]:
        """Yields reports of how many records have no row, and how many rows have no record.

        Raises:
            SourceError: if no row has the id of a record.
        """
        name = Path(self._options.join).name
        if not self._joined:
            raise SourceError(f"no row of {name} has the id of a record in its column {self._options.columns.id!r}")
        if self._joined < self._records:
            count = self._records - self._joined
            yield Rejection("", name, f"{count:,} of {self._records:,} records have no row", "kept as they were")
        if self._used < self._rows:
            yield Rejection("", name, f"{self._rows - self._used:,} of {self._rows:,} rows have no record", "rows not used")


def _text_fields(infos: list[DatasetInfo], options: Options) -> dict[str, bool]:
    """Maps the text fields of all datasets and the joined table to whether they are derived from the label."""
    fields: dict[str, bool] = {}
    for info in infos:
        for field, derived in info.text_fields.items():
            if fields.setdefault(field, derived) != derived:
                raise SourceError(f"text field {field!r} is derived from the label in one dataset, and not in another")
    return fields | {field: field in options.derived_from_label for field in options.columns.text}


def _check_names(kind: str, chosen: tuple[str, ...], known: list[str]) -> None:
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise SourceError(f"the datasets have no {kind} {unknown[0]!r}; they have {sorted(set(known))[:20]}")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="DATASET", help="dataset folders that were packed before")
    parser.add_argument("--splits", default="", metavar="SPLIT,…", help="only these splits")
    parser.add_argument("--keep_labels", default="", metavar="LABEL,…", help="only records with one of these labels")
    parser.add_argument(
        "--require", default="", metavar="FIELD,…", help="only records with all of these: image, label, text fields"
    )
    parser.add_argument("--ids", type=Path, metavar="FILE", help="only records whose ids stand in FILE, one a line")
    parser.add_argument("--without_ids", type=Path, metavar="FILE", help="no records whose ids stand in FILE")
    parser.add_argument("--prefix_ids", action="store_true", help="put the name of the dataset before ids")
    parser.add_argument("--resplit", action="store_true", help="draw splits anew, see --fractions (default: keep them)")
    parser.add_argument("--resize", action="store_true", help="make images anew, see --short_side (default: keep their bytes)")
    join = parser.add_argument_group("columns of a table, by id")
    join.add_argument("--join", type=Path, metavar="FILE", help=".csv, .tsv, .jsonl or .parquet")
    join.add_argument("--join_id", metavar="COLUMN", help="whose cells are ids of records")
    join.add_argument("--text", default="", metavar="COLUMN,…", help="text fields to add or replace")
    join.add_argument("--label", metavar="COLUMN", help="labels to replace those of records")
    join.add_argument("--label_separator", metavar="S", help="several labels a cell, separated by S (makes it multi-label)")
    join.add_argument("--multi_label", action="store_true", help="label cells may hold lists (JSON Lines, Parquet)")
    join.add_argument("--weight", metavar="COLUMN", help="weights to replace those of records")
    join.add_argument("--split", metavar="COLUMN", help="splits to replace those of records")
    join.add_argument("--derived_from_label", default="", metavar="COLUMN,…", help="joined texts computed from the label")


def _source_of(options: argparse.Namespace) -> Source:
    return make_source(
        Options(
            folders=tuple(options.folders),
            splits=comma_list(options.splits) or None,
            labels=comma_list(options.keep_labels) or None,
            require=comma_list(options.require),
            ids=options.ids,
            without_ids=options.without_ids,
            prefix_ids=options.prefix_ids,
            resplit=options.resplit,
            resize=options.resize,
            join=options.join,
            columns=table.Columns(
                id=options.join_id,
                text=comma_list(options.text),
                label=options.label,
                weight=options.weight,
                split=options.split,
            ),
            label_separator=options.label_separator,
            multi_label=options.multi_label,
            derived_from_label=comma_list(options.derived_from_label),
        )
    )


COMMAND = SourceCommand(
    name="tfrecords",
    help="datasets that were packed before: re-shard, filter, merge, split anew, join columns by id",
    epilog="""examples:
  tfrecords-tools pack tfrecords data/products --examples_per_shard=500 --output=data/products_small_shards
  tfrecords-tools pack tfrecords data/shop_a data/shop_b --prefix_ids --require=image,title --output=data/shops
  tfrecords-tools pack tfrecords data/products --join=relevance.csv --join_id=id --weight=relevance --output=data/weighted

The bytes of images are kept exactly, unless --resize is given.
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
