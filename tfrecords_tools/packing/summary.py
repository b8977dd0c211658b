"""What one should know of a dataset that was just packed: examples left out or without a label, classes without examples."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from tfrecords_tools.dataset.info import REJECTED_FILE, DatasetInfo

_SHOWN = 10
_FRACTION = re.compile(r"-?\d*[.,]\d+")
_NOTHING = frozenset(("nan", "NaN", "None", "null", "NULL", "NA", "N/A", "n/a", "<NA>", "NaT", "-", "-1", "?"))


def summary_lines(info: DatasetInfo, folder: str | Path, train_split: str = "train") -> list[str]:
    """Lines on rows left out or unlabelled, odd names of classes, and classes without examples in a split; none if all is well.

    Example:
        >>> summary_lines(info, "data/products")
        ['3 left out: see data/products/rejected.jsonl',
         "no training example of 1 class, which cannot be learned: 'lamps' (test 4)"]
    """
    lines = [f"{count:,} {action}: see {Path(folder) / REJECTED_FILE}" for action, count in info.provenance["rejected"].items()]
    if info.provenance.get("too_many_to_stratify"):
        lines.append(
            f"splits were drawn by {info.provenance['splits_drawn_by']}: there are too many examples to do it by label"
        )
    return lines + _unlabelled(info) + _odd_names(info.labels.names) + _absent_classes(info, train_split)


def _unlabelled(info: DatasetInfo) -> list[str]:
    left_out = info.provenance.get("unlabelled_left_out", 0)
    total = sum(info.num_examples(split) for split in info.splits)
    num_unlabelled = sum(info.statistics[split]["without_label"] for split in info.splits)
    unknown = info.provenance.get("unknown_labels_left_out", 0)
    lines = [f"{left_out - unknown:,} without a label were left out, as asked"] if left_out > unknown else []
    if unknown:
        lines.append(
            f"{unknown:,} without a label were left out; where empty cells say that no label applies: --empty_means_none"
        )
    if num_unlabelled and len(info.labels):
        meaning = (
            "taken for examples to which no label applies (--unlabelled=leave_out leaves them out)"
            if info.multi_label
            else "kept for prediction; training and evaluation do not see them"
        )
        lines.append(f"{num_unlabelled:,} of {total:,} examples have no label: {meaning}")
    return lines


def _odd_names(names: list[str]) -> list[str]:
    """Lines on names that mean "no label" in other programs, that are fractions, or that differ in nothing but spelling."""
    lines = [
        f"{name!r} is a class like any other; where it means that there is no label, empty the cells"
        for name in names
        if name in _NOTHING
    ]
    fractions = [name for name in names if _FRACTION.fullmatch(name)]
    if len(fractions) > len(names) / 2:
        lines.append(
            f"{len(fractions):,} of {_classes(names)} are numbers with fractions, such as {fractions[0]!r}: "
            "a quantity is no class; put its ranges into a column, with pandas.cut for one"
        )
    spelled: dict[str, list[str]] = {}
    for name in names:
        spelled.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(name)
    alike = [" and ".join(map(repr, group)) for group in spelled.values() if len(group) > 1]
    if alike:
        lines.append(f"classes that differ in capitals or in how accents are encoded alone: {_listed(alike)}")
    return lines


def _absent_classes(info: DatasetInfo, train_split: str) -> list[str]:
    counts = {split: dict(zip(info.labels.names, info.label_counts(split), strict=True)) for split in info.splits}
    nowhere = [name for name in info.labels.names if not any(counts[split][name] for split in counts)]
    lines = []
    if nowhere:
        left_out = info.provenance.get("labels_left_out", {})
        shown = (f"{name!r} ({left_out[name]:,} left out)" if name in left_out else repr(name) for name in nowhere)
        lines.append(f"no example at all of {_classes(nowhere)}: {_listed(shown)}")
    if train_split not in counts:
        return lines
    untrained = [name for name in info.labels.names if not counts[train_split][name] and name not in set(nowhere)]
    if untrained:
        shown = (
            f"{name!r} ({', '.join(f'{split} {counts[split][name]:,}' for split in counts if counts[split][name])})"
            for name in untrained
        )
        lines.append(f"no training example of {_classes(untrained)}, which cannot be learned: {_listed(shown)}")
    unmeasured = {
        split: sum(not counts[split][name] for name in info.labels.names if counts[train_split][name])
        for split in counts
        if split != train_split
    }
    missing = [f"{number:,} in {split!r}" for split, number in unmeasured.items() if number]
    if missing:
        lines.append(f"classes without an example to be measured by: {', '.join(missing)}")
    return lines


def _classes(names: list[str]) -> str:
    return f"{len(names):,} class{'es' if len(names) > 1 else ''}"


def _listed(parts) -> str:
    parts = list(parts)
    return ", ".join(parts[:_SHOWN]) + (", …" if len(parts) > _SHOWN else "")
