"""Reads all files of a dataset: the records, which are compared with dataset.json and their index, and what is beside them."""

from __future__ import annotations

from pathlib import Path

from tfrecords_tools.dataset.checksums import DamagedFileError, find_problems, load
from tfrecords_tools.dataset.folder import DESCRIPTIONS
from tfrecords_tools.dataset.index import INDEX_FOLDER, ShardIndex, index_file
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.dataset.schema import Record, SchemaError, decode_example
from tfrecords_tools.dataset.shards import CorruptShardError, iter_placed_records, sha256_of, shard_name
from tfrecords_tools.dataset.splits import draw_split, hash_id
from tfrecords_tools.packing.images import BadImageError, check_jpeg
from tfrecords_tools.progress import progress_bar

_MAX_NAMED = 5


def verify(folder: str | Path, progress: bool = True) -> list[str]:
    """Checks every file, record and image of a dataset.

    - Every file but the shards is compared with its checksum in checksums.sha256, which ends in its own.
    - Of a shard its presence, name, size, sha256, number of records, and index are checked.
    - Of a record the checksums, the schema, its unique id, and its place are checked. The hash of the id has to be in the range
      of the shard, and to follow that of the record before it. If splits were drawn, the id has to draw this split.
    - Every image is decoded, and its size compared with that in the record.

    Args:
        folder: a dataset folder.
        progress: whether to show a progress bar on standard error.

    Returns:
        one line for each problem. An empty list means that everything is as dataset.json says.

    Raises:
        FileNotFoundError: if the folder holds no dataset.json.

    Example:
        >>> verify("data/products")
        ['train-00001-of-00004.tfrecord: sha256 differs from dataset.json']
    """
    folder = Path(folder)
    problems = find_problems(folder)
    try:
        info = DatasetInfo.load(folder)
    except DamagedFileError:
        return [*problems, "the records were not read: what describes them has to be put right first"]
    damaged_index = {problem.partition(":")[0]: problem for problem in problems if problem.startswith(f"{INDEX_FOLDER}/")}
    problems = [problem for problem in problems if problem not in damaged_index.values()]
    problems += _unlisted(folder)
    seen: dict[str, str] = {}
    shard_files = [shard.file for shards in info.splits.values() for shard in shards]
    listed = {*shard_files, *map(index_file, shard_files)}
    paths = [*folder.glob("*.tfrecord*"), *folder.glob(f"{INDEX_FOLDER}/*")]
    for name in sorted(path.relative_to(folder).as_posix() for path in paths):
        if name not in listed:
            problems.append(f"{name}: not listed in dataset.json")
    total = sum(info.num_examples(split) for split in info.splits)
    with progress_bar("verifying", "records", total, progress) as bar:
        for split, shards in info.splits.items():
            for number in range(len(shards)):
                shard_problems = _check_shard(folder, info, split, number, seen, bar)
                index = index_file(shards[number].file)
                if index in damaged_index and not any(problem.startswith(index) for problem in shard_problems):
                    shard_problems.append(damaged_index[index])  # `_check_shard` found nothing wrong with its rows
                problems += shard_problems
    return problems


def _unlisted(folder: Path) -> list[str]:
    try:
        known = load(folder).files
    except (DamagedFileError, FileNotFoundError):
        return []  # `find_problems` reports it
    return [f"{name}: stands in no checksum" for name in DESCRIPTIONS if (folder / name).is_file() and name not in known]


def _check_shard(folder: Path, info: DatasetInfo, split: str, number: int, seen: dict[str, str], bar) -> list[str]:
    shards = info.shards(split)
    shard = shards[number]
    path = folder / shard.file
    if not path.is_file():
        return [f"{shard.file}: the shard is missing"]
    problems = []
    name = shard_name(split, number, len(shards))
    if shard.file != name:
        problems.append(f"{shard.file}: stands in dataset.json where {name} belongs")
    if path.stat().st_size != shard.num_bytes:
        problems.append(f"{shard.file}: {path.stat().st_size:,} bytes, dataset.json says {shard.num_bytes:,}")
    elif sha256_of(path) != shard.sha256:
        problems.append(f"{shard.file}: sha256 differs from dataset.json")
    order = _Order(info, split, number)
    index = ShardIndex(split, shard.file, tuple(info.text_fields), info.labels)
    complete = True
    count = 0
    try:
        for count, (offset, serialized) in enumerate(iter_placed_records(path), start=1):
            bar.update()
            where = f"{shard.file}: record {count - 1}"
            try:
                record = decode_example(serialized)
            except SchemaError as error:
                problems.append(f"{where}: {error}")
                complete = False
                continue
            broken = _check_record(record, info)
            problems += [f"{where} ({record.id}): {problem}" for problem in (*broken, *order.check(record.id))]
            complete = complete and not broken
            if complete:
                index.add(record, offset)
            if record.id in seen:
                problems.append(f"{where}: id {record.id!r} stands in {seen[record.id]} too")
            seen[record.id] = shard.file
    except CorruptShardError as error:
        return [*problems, str(error)]
    if count != shard.num_examples:
        problems.append(f"{shard.file}: {count} records, dataset.json says {shard.num_examples}")
    return problems + (_check_index(folder, shard.file, index) if complete else [])


class _Order:
    """Checks the order of the records of a shard, if dataset.json says with which seed they were packed."""

    def __init__(self, info: DatasetInfo, split: str, number: int):
        options = info.provenance.get("pack_options", {})
        self._seed, self._fractions = options.get("seed"), options.get("fractions")
        self._drawn = info.provenance.get("splits_drawn", False)
        self._split, self._number, self._num_shards = split, number, len(info.shards(split))
        self._last = 0

    def check(self, example_id: str) -> list[str]:
        if self._seed is None:
            return []
        problems = []
        if self._drawn and (drawn := draw_split(example_id, self._fractions, self._seed)) != self._split:
            problems.append(f"its id draws the split {drawn!r}, not {self._split!r}")
        position = hash_id(example_id, "order", self._seed)
        number = (position * self._num_shards) >> 63
        if number != self._number:
            problems.append(f"its id belongs into {shard_name(self._split, number, self._num_shards)}")
        elif position < self._last:
            problems.append("records are ordered by the hashes of their ids; this one comes too late")
        self._last = max(position, self._last)
        return problems


def _check_index(folder: Path, shard: str, index: ShardIndex) -> list[str]:
    """Compares the index of the records that were read with the index file of the shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = index_file(shard)
    try:
        listed = pq.ParquetFile(folder / file).read()
    except FileNotFoundError:
        return [f"{file}: the index of {shard} is missing"]
    except (pa.ArrowException, OSError) as error:
        return [f"{file}: cannot be read: {error}"]
    expected = index.table()
    if expected.equals(listed):
        return []
    if expected.schema != listed.schema:
        return [f"{file}: its columns are not those of the records"]
    rows, listed_rows = ({row.pop("id"): row for row in table.to_pylist()} for table in (expected, listed))
    differing = [name for name in rows if name in listed_rows and _but_place(rows[name]) != _but_place(listed_rows[name])]
    kinds = {
        f"does not list what is in {shard}": [name for name in rows if name not in listed_rows],
        f"lists what is not in {shard}": [name for name in listed_rows if name not in rows],
        f"says other things than {shard}": differing,
    }
    problems = [f"{file}: {kind}: {_enumerated(names)}" for kind, names in kinds.items() if names]
    return problems or [f"{file}: lists other offsets, or another order, than {shard} has"]


def _but_place(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "offset"}


def _enumerated(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_MAX_NAMED])) + f" and {len(names) - _MAX_NAMED:,} more" * (len(names) > _MAX_NAMED)


def _check_record(record: Record, info: DatasetInfo) -> list[str]:
    problems = []
    if set(record.texts) != set(info.text_fields):
        problems.append(f"text fields {sorted(record.texts)}, dataset.json says {sorted(info.text_fields)}")
    outside = [index for index in record.label_ids if not 0 <= index < len(info.labels)]
    if outside:
        problems.append(f"label id {outside[0]} is outside 0–{len(info.labels) - 1}")
    if len(record.label_ids) > 1 and not info.multi_label:
        problems.append(f"{len(record.label_ids)} labels in a single-label dataset")
    if not record.image and (record.height or record.width):
        problems.append(f"no image, yet it is said to be {record.width}x{record.height}")
    if record.image:
        try:
            height, width = check_jpeg(record.image)
            if (height, width) != (record.height, record.width):
                problems.append(f"the image is {width}x{height}, the record says {record.width}x{record.height}")
        except BadImageError as error:
            problems.append(f"bad image: {error}")
    return problems
