"""Re-reads a whole dataset and compares it with its dataset.json."""

from __future__ import annotations

from pathlib import Path

from tfrecords_tools.dataset_info import DatasetInfo, ShardInfo
from tfrecords_tools.images import BadImageError, check_jpeg
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.schema import Record, SchemaError, decode_example
from tfrecords_tools.shards import CorruptShardError, iter_records, sha256_of


def verify(folder: str | Path, progress: bool = True) -> list[str]:
    """Checks every shard (presence, size, sha256, count), record (checksums, schema, unique id) and image.

    Args:
        folder: a dataset folder.
        progress: show a progress bar on standard error.

    Returns:
        one line per problem; an empty list means that everything is as dataset.json says.

    Raises:
        FileNotFoundError: if the folder holds no dataset.json.
    """
    folder = Path(folder)
    info = DatasetInfo.load(folder)
    problems: list[str] = []
    seen: dict[str, str] = {}
    listed = {shard.file for shards in info.splits.values() for shard in shards}
    for path in sorted(folder.glob("*.tfrecord*")):
        if path.name not in listed:
            problems.append(f"{path.name}: not listed in dataset.json")
    total = sum(info.num_examples(split) for split in info.splits)
    with progress_bar("verifying", "records", total, progress) as bar:
        for shards in info.splits.values():
            for shard in shards:
                problems += _check_shard(folder, shard, info, seen, bar)
    return problems


def _check_shard(folder: Path, shard: ShardInfo, info: DatasetInfo, seen: dict[str, str], bar) -> list[str]:
    path = folder / shard.file
    if not path.is_file():
        return [f"{shard.file}: the shard is missing"]
    problems = []
    if path.stat().st_size != shard.num_bytes:
        problems.append(f"{shard.file}: {path.stat().st_size:,} bytes, dataset.json says {shard.num_bytes:,}")
    elif sha256_of(path) != shard.sha256:
        problems.append(f"{shard.file}: sha256 differs from dataset.json")
    count = 0
    try:
        for count, serialized in enumerate(iter_records(path), start=1):
            bar.update()
            where = f"{shard.file}: record {count - 1}"
            try:
                record = decode_example(serialized)
            except SchemaError as error:
                problems.append(f"{where}: {error}")
                continue
            problems += [f"{where} ({record.id}): {problem}" for problem in _check_record(record, info)]
            if record.id in seen:
                problems.append(f"{where}: id {record.id!r} stands in {seen[record.id]} too")
            seen[record.id] = shard.file
    except CorruptShardError as error:
        return [*problems, str(error)]
    if count != shard.num_examples:
        problems.append(f"{shard.file}: {count} records, dataset.json says {shard.num_examples}")
    return problems


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
