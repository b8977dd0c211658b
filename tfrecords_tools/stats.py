"""Statistics of a packed dataset: what is there, what is missing, how long, how large."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from tfrecords_tools.dataset_info import DatasetInfo
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.schema import decode_example
from tfrecords_tools.shards import iter_records
from tfrecords_tools.splits import hash_id

_WORD = re.compile(r"[^\W_]+")


def compute_stats(folder: str | Path, progress: bool = True) -> dict:
    """Reads every record and returns, per split: examples, MB, labels, missing modalities, words and image sizes.

    `words` counts by white space; spreads are {min, median, p95, max}; `bytes_per_image` and sides are of stored images.
    Of the examples that have a text in a field, `label_in_text` is the share in whose texts the name of their own label
    stands (a leak, where the name would not be known when the model is used), `repeated_texts` the share whose texts an
    earlier example has too, `conflicting_texts` the share of those that carry other labels.
    """
    info = DatasetInfo.load(folder)
    return {split: _split_stats(Path(folder), info, split, progress) for split in info.splits}


def _split_stats(folder: Path, info: DatasetInfo, split: str, progress: bool) -> dict:
    labels: Counter = Counter()
    labels_per_example, short_sides, image_bytes = [], [], []
    names = [_letters(name) for name in info.labels.names]
    fields = {field: _FieldStats() for field in info.text_fields}
    total = info.num_examples(split)
    with progress_bar(f"reading {split}", "records", total, progress) as bar:
        for shard in info.shards(split):
            for record in map(decode_example, iter_records(folder / shard.file)):
                bar.update()
                labels.update(record.label_ids)
                labels_per_example.append(len(record.label_ids))
                if record.image:
                    short_sides.append(min(record.height, record.width))
                    image_bytes.append(len(record.image))
                for field, texts in record.texts.items():
                    fields[field].add(texts, record.label_ids, names)
    missing = {"image": total - len(short_sides), **{name: total - field.examples for name, field in fields.items()}}
    return {
        "examples": total,
        "megabytes": round(sum(shard.num_bytes for shard in info.shards(split)) / 1e6, 2),
        "shards": len(info.shards(split)),
        "missing": {name: count / max(total, 1) for name, count in missing.items()},
        "unlabelled": labels_per_example.count(0) / max(total, 1),
        "label_in_text": {name: field.telling / max(field.examples, 1) for name, field in fields.items()},
        "repeated_texts": {name: field.repeated / max(field.examples, 1) for name, field in fields.items()},
        "conflicting_texts": {name: field.conflicting / max(field.examples, 1) for name, field in fields.items()},
        "labels_per_example": _spread(labels_per_example),
        "examples_per_label": _spread([labels[index] for index in range(len(info.labels))]),
        "words": {name: _spread(field.words) for name, field in fields.items()},
        "short_side": _spread(short_sides),
        "bytes_per_image": _spread(image_bytes),
    }


class _FieldStats:
    """Counts of one text field over the examples that have it.

    Attributes:
        examples: that have a text there.
        words: of each text.
        telling: examples in whose texts the name of one of their labels stands.
        repeated: examples whose texts another one had before; conflicting: those of them with other labels.
    """

    def __init__(self):
        self.examples = self.telling = self.repeated = self.conflicting = 0
        self.words: list[int] = []
        self._labels_of: dict[int, tuple[int, ...]] = {}  # by a hash of the texts: the texts themselves could fill the memory

    def add(self, texts: tuple[str, ...], label_ids: tuple[int, ...], names: list[str]) -> None:
        if not texts:
            return
        self.examples += 1
        self.words += [len(text.split()) for text in texts]
        letters = " ".join(map(_letters, texts))
        self.telling += any(f" {names[index]} " in f" {letters} " for index in label_ids)
        key = hash_id("\n".join(texts), "texts", 0)
        self.repeated += key in self._labels_of
        self.conflicting += self._labels_of.setdefault(key, label_ids) != label_ids


def _letters(text: str) -> str:
    """Lower-case words of letters and digits, a space apart."""
    return " ".join(_WORD.findall(text.lower()))


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
        for key in ("label_in_text", "repeated_texts", "conflicting_texts"):
            shares = [f"{field} {share:.1%}" for field, share in content[key].items()]
            lines.append(f"  {key:<19} {', '.join(shares) or 'none'}")
        spreads = {key: content[key] for key in ("labels_per_example", "examples_per_label", "short_side", "bytes_per_image")}
        spreads |= {f"words/{field}": spread for field, spread in content["words"].items()}
        for name, spread in spreads.items():
            values = "  ".join(f"{key} {value:,}" for key, value in spread.items())
            lines.append(f"  {name:<19} {values or 'none'}")
    return "\n".join(lines)
