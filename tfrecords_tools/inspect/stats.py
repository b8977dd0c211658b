"""Computes statistics of a packed dataset: its labels, missing images and texts, words, and sizes of images."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.dataset.printable import printable
from tfrecords_tools.dataset.schema import Record, decode_example
from tfrecords_tools.dataset.shards import iter_records
from tfrecords_tools.inspect.text_stats import TextStats, words_of
from tfrecords_tools.progress import progress_bar

IMAGE_SIZES = ("width", "height", "short_side", "bytes_per_image")
_NUM_FREQUENT = 20
_NUM_SHOWN = 8  # frequent words and labels in the text form
_MAX_SOURCES = 20
_MAX_EQUAL_BINS = 40
_BINS_PER_DECADE = 10


def compute_stats(folder: str | Path, progress: bool = True) -> dict:
    """Reads every record of a dataset and computes statistics of each split.

    Memory holds 12 bytes for each text field that an example has; the rest does not grow with the number of examples.

    Args:
        folder: a dataset folder.
        progress: whether to show progress bars on standard error.

    Returns:
        a dict that maps each split to a dict of its statistics:

        - `examples`, `shards`, `megabytes`: how large the split is.
        - `missing`: the fractions of examples without an image, and without a text in each field. `unlabelled` is the fraction
          of examples without a label.
        - `missing_by_source`: the same for each source. The source of a record is the first folder of its id, as in
          "google/q0001/abc.jpg" of WebVision. It is empty if the records have one source, or more than 20, which are not
          sources but classes.
        - `labels_per_example`, `examples_per_label`, `words` (by field) and the sizes of the stored images: spreads, which are
          {min, median, p95, max, histogram}, or {} where there is nothing to count. A histogram is a list of
          [low, high, count], both ends inclusive. Bytes of images are rounded to three digits.
        - `frequent_labels`, and `frequent_words` by field: names and words with their counts, the most frequent first.
        - the fractions that `TextStats.shares` describes, by field.

    Raises:
        ValueError: if a record has a text field or a label that dataset.json does not list.

    Example:
        >>> compute_stats("data/products")["train"]["missing"]
        {'image': 0.0, 'title': 0.012}
    """
    info = DatasetInfo.load(folder)
    return {split: _split_stats(Path(folder), info, split, progress) for split in info.splits}


def _split_stats(folder: Path, info: DatasetInfo, split: str, progress: bool) -> dict:
    counts = _Counts(info)
    with progress_bar(f"reading {split}", "records", info.num_examples(split), progress) as bar:
        for shard in info.shards(split):
            for record in map(decode_example, iter_records(folder / shard.file, shard.num_examples)):
                try:
                    counts.add(record)
                except LookupError as error:
                    raise ValueError(
                        f"{shard.file}: record {record.id!r} has a text field or a label that dataset.json does not list "
                        f"({error}); see: tfrecords-tools verify {folder}"
                    ) from error
                bar.update()
    total = sum(counts.labels_per_example.values())
    per_label = Counter({name: counts.labels[index] for index, name in enumerate(info.labels.names)})
    texts = {field: stats.shares() for field, stats in counts.texts.items()}
    return {
        "examples": total,
        "megabytes": round(sum(shard.num_bytes for shard in info.shards(split)) / 1e6, 2),
        "shards": len(info.shards(split)),
        "missing": counts.missing_of(counts.all_sources),
        "unlabelled": counts.labels_per_example[0] / max(total, 1),
        "missing_by_source": {
            source: {"examples": present[None], "missing": counts.missing_of(present)} for source, present in counts.sources()
        },
        **{name: {field: shares[name] for field, shares in texts.items()} for name in TextStats.SHARES},
        "labels_per_example": _spread(counts.labels_per_example),
        "examples_per_label": _spread(Counter(per_label.values()), logarithmic=True),
        "frequent_labels": {name: count for name, count in per_label.most_common(_NUM_FREQUENT) if count},
        "words": {field: _spread(stats.lengths) for field, stats in counts.texts.items()},
        "frequent_words": {field: stats.frequent_words(_NUM_FREQUENT) for field, stats in counts.texts.items()},
        **{name: _spread(sizes) for name, sizes in counts.images.items()},
    }


class _Counts:
    """The counts of one split, to which records are added one by one."""

    def __init__(self, info: DatasetInfo):
        self.labels: Counter = Counter()
        self.labels_per_example: Counter = Counter()
        self.images: dict[str, Counter] = {name: Counter() for name in IMAGE_SIZES}
        self.texts = {field: TextStats() for field in info.text_fields}
        self.all_sources: Counter = Counter()
        self._sources: dict[str, Counter] = defaultdict(Counter)
        self._label_words = [words_of(name) for name in info.labels.names]

    def add(self, record: Record) -> None:
        self.labels.update(record.label_ids)
        self.labels_per_example[len(record.label_ids)] += 1
        present: list[str | None] = [None]  # None counts the example itself
        if record.image:
            present.append("image")
            digits = int(float(f"{len(record.image):.3g}"))
            sizes = record.width, record.height, min(record.width, record.height), digits
            for counts, size in zip(self.images.values(), sizes, strict=True):
                counts[size] += 1
        for field, texts in record.texts.items():
            if texts:
                present.append(field)
                self.texts[field].add(texts, record.label_ids, self._label_words)
        self.all_sources.update(present)
        if len(self._sources) <= _MAX_SOURCES:
            self._sources[record.id.split("/", 1)[0] if "/" in record.id else "(no folder)"].update(present)

    def missing_of(self, present: Counter) -> dict[str, float]:
        """The fractions of examples that have no image, or no text in a field."""
        total = present[None]
        return {name: (total - present[name]) / max(total, 1) for name in ("image", *self.texts)}

    def sources(self) -> list[tuple[str, Counter]]:
        return sorted(self._sources.items()) if 2 <= len(self._sources) <= _MAX_SOURCES else []


def _spread(counts: Counter, logarithmic: bool = False) -> dict:
    """The spread of integers, of which `counts` says how often they occur.

    The bins of the histogram are logarithmic if `logarithmic` says so, or if the integers range over more than a decade.
    """
    if not counts:
        return {}
    values = np.array(sorted(counts))
    weights = np.array([counts[value] for value in values.tolist()])
    quantiles = np.quantile(values, [0, 0.5, 0.95, 1], weights=weights, method="inverted_cdf").astype(int).tolist()
    spread = dict(zip(("min", "median", "p95", "max"), quantiles, strict=True))
    return spread | {"histogram": make_histogram(values, weights, logarithmic)}


def make_histogram(values: np.ndarray, weights: np.ndarray, logarithmic: bool) -> list[list[int]]:
    """Bins integers: [low, high, count] each, both ends inclusive, without the empty bins at the ends.

    Args:
        values: distinct integers in ascending order, int64 [N].
        weights: how often each occurs, int64 [N].
        logarithmic: whether bins grow with the values; they do too where equal bins would be too wide for small values.
    """
    low, high = int(values[0]), int(values[-1])
    width = -(-(high - low + 1) // _MAX_EQUAL_BINS)
    if logarithmic or (width > 1 and high > 10 * low):
        powers = np.arange(np.ceil(np.log10(high + 1) * _BINS_PER_DECADE) + 1) / _BINS_PER_DECADE
        edges = np.unique(np.append(0, np.round(10**powers).astype(int)))
    else:
        edges = np.arange(low, high + width + 1, width)
    sums = np.histogram(values, edges, weights=weights)[0].tolist()
    bins = [[int(edges[i]), int(edges[i + 1]) - 1, count] for i, count in enumerate(sums)]
    filled = [i for i, count in enumerate(sums) if count]
    return bins[filled[0] : filled[-1] + 1]


def format_stats(stats: dict) -> str:
    """The statistics as text: a block of lines for each split, without the histograms."""
    lines = []
    for split, content in stats.items():
        lines.append(f"{split}: {content['examples']:,} examples, {content['megabytes']} MB, {content['shards']} shard(s)")
        lines.append(f"  missing             {_shares(content['missing'] | {'label': content['unlabelled']})}")
        for source, counted in content["missing_by_source"].items():
            lines.append(f"  missing/{source:<11} {_shares(counted['missing'])} of {counted['examples']:,}")
        lines += [f"  {key:<19} {_shares(content[key])}" for key in TextStats.SHARES]
        spreads = {key: content[key] for key in ("labels_per_example", "examples_per_label")}
        spreads |= {f"words/{field}": spread for field, spread in content["words"].items()}
        spreads |= {key: content[key] for key in IMAGE_SIZES}
        for name, spread in spreads.items():
            values = "  ".join(f"{key} {value:,}" for key, value in spread.items() if key != "histogram")
            lines.append(f"  {name:<19} {values or 'none'}")
        counts = {f"words in {field}": words for field, words in content["frequent_words"].items()}
        for name, counted in ({"labels": content["frequent_labels"]} | counts).items():
            shown = ", ".join(f"{value} {count:,}" for value, count in list(counted.items())[:_NUM_SHOWN])
            lines.append(f"  {name:<19} {shown or 'none'}")
    return "\n".join(map(printable, lines))


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items()) or "none"
