"""Statistics of a packed dataset: what is there, what is missing, how long, how large."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from tfrecords_tools.dataset_info import DatasetInfo
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.schema import decode_example
from tfrecords_tools.shards import iter_records


def compute_stats(folder: str | Path, progress: bool = True) -> dict:
    """Reads every record and returns, per split: examples, MB, labels, missing modalities, words and image sizes.

    `words` counts by white space; spreads are {min, median, p95, max}; `bytes_per_image` and sides are of stored images.
    """
    info = DatasetInfo.load(folder)
    return {split: _split_stats(Path(folder), info, split, progress) for split in info.splits}


def _split_stats(folder: Path, info: DatasetInfo, split: str, progress: bool) -> dict:
    labels: Counter = Counter()
    labels_per_example, short_sides, image_bytes = [], [], []
    words: dict[str, list[int]] = {field: [] for field in info.text_fields}
    missing: Counter = Counter()
    total = info.num_examples(split)
    bar = progress_bar(f"reading {split}", "records", total, progress)
    with bar:
        for shard in info.shards(split):
            for record in map(decode_example, iter_records(folder / shard.file)):
                bar.update()
                labels.update(record.label_ids)
                labels_per_example.append(len(record.label_ids))
                if record.image:
                    short_sides.append(min(record.height, record.width))
                    image_bytes.append(len(record.image))
                else:
                    missing["image"] += 1
                for field, texts in record.texts.items():
                    words[field] += [len(text.split()) for text in texts]
                    missing[field] += not texts
    return {
        "examples": total,
        "megabytes": round(sum(shard.num_bytes for shard in info.shards(split)) / 1e6, 2),
        "shards": len(info.shards(split)),
        "missing": {name: missing[name] / max(total, 1) for name in ("image", *info.text_fields)},
        "unlabelled": labels_per_example.count(0) / max(total, 1),
        "labels_per_example": _spread(labels_per_example),
        "examples_per_label": _spread([labels[index] for index in range(len(info.labels))]),
        "words": {field: _spread(counts) for field, counts in words.items()},
        "short_side": _spread(short_sides),
        "bytes_per_image": _spread(image_bytes),
    }


def _spread(values: list[int]) -> dict[str, int]:
    if not values:
        return {}
    quantiles = np.quantile(values, [0, 0.5, 0.95, 1]).round().astype(int).tolist()
    return dict(zip(("min", "median", "p95", "max"), quantiles, strict=True))


def format_stats(stats: dict) -> str:
    """The same as text, a block per split."""
    lines = []
    for split, content in stats.items():
        lines.append(f"{split}: {content['examples']:,} examples, {content['megabytes']} MB, {content['shards']} shard(s)")
        shares = [f"{name} {share:.1%}" for name, share in (content["missing"] | {"label": content["unlabelled"]}).items()]
        lines.append(f"  missing             {', '.join(shares)}")
        spreads = {key: content[key] for key in ("labels_per_example", "examples_per_label", "short_side", "bytes_per_image")}
        spreads |= {f"words/{field}": spread for field, spread in content["words"].items()}
        for name, spread in spreads.items():
            values = "  ".join(f"{key} {value:,}" for key, value in spread.items())
            lines.append(f"  {name:<19} {values or 'none'}")
    return "\n".join(lines)
