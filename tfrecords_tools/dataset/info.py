"""dataset.json: what a packed dataset is, and the only sign that it is complete (it is written last)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.schema import SCHEMA_VERSION

DATASET_FILE = "dataset.json"
LABELS_FILE = "labels.txt"
REJECTED_FILE = "rejected.jsonl"
CROISSANT_FILE = "croissant.json"
CLASS_DESCRIPTIONS_FILE = "class_descriptions.jsonl"


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One shard file with its number of records, bytes and sha256."""

    file: str
    num_examples: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass
class DatasetInfo:
    """The contents of dataset.json, and of labels.txt beside it.

    Attributes:
        name: the name of the dataset.
        labels: the label vocabulary.
        multi_label: whether a record may carry several labels.
        text_fields: field name -> whether its text is derived from the label.
        splits: split name -> its shards, in order.
        images: how images were stored (`ImageOptions` as a dict).
        statistics: counts a split: examples, missing images and texts, labels.
        provenance: source, options, files with sha256, versions, seed.
        ceilings: best accuracy to expect, by the modalities that a model sees; known only for drawn data.
    """

    name: str
    labels: LabelVocabulary
    multi_label: bool
    text_fields: dict[str, bool]
    splits: dict[str, list[ShardInfo]]
    images: dict = dataclasses.field(default_factory=dict)
    statistics: dict = dataclasses.field(default_factory=dict)
    provenance: dict = dataclasses.field(default_factory=dict)
    ceilings: dict[str, float] = dataclasses.field(default_factory=dict)

    def num_examples(self, split: str) -> int:
        return sum(shard.num_examples for shard in self.shards(split))

    def label_counts(self, split: str) -> list[int]:
        """How many examples of a split carry each label, by label id."""
        return [self.statistics[split]["labels"][name] for name in self.labels.names]

    def shards(self, split: str) -> list[ShardInfo]:
        """The shards of a split.

        Raises:
            ValueError: for a split that the dataset does not have.
        """
        if split not in self.splits:
            raise ValueError(f"dataset {self.name!r} has no split {split!r}; it has {sorted(self.splits)}")
        return self.splits[split]

    def save(self, folder: Path) -> None:
        """Writes labels.txt and dataset.json, the latter last and atomically."""
        self.labels.save(folder / LABELS_FILE)
        content = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "label_kind": "multi_label" if self.multi_label else "multi_class",
            "num_labels": len(self.labels),
            "text_fields": {field: {"derived_from_label": derived} for field, derived in self.text_fields.items()},
            "images": self.images,
            "splits": {
                split: {
                    "num_examples": self.num_examples(split),
                    "shards": [dataclasses.asdict(shard) for shard in shards],
                }
                for split, shards in self.splits.items()
            },
            "statistics": self.statistics,
            "ceilings": self.ceilings,
            "provenance": self.provenance,
        }
        write_text(folder / DATASET_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> DatasetInfo:
        """Reads a dataset folder's description.

        Raises:
            FileNotFoundError: if there is none: not a dataset folder, or its packing did not finish.
            ValueError: if it was written by another version of the schema, or its files do not belong together.
        """
        path = Path(folder) / DATASET_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: {str(folder)!r} is no dataset folder, or its packing did not finish. "
                "Pack one with: tfrecords-tools pack --help"
            )
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if content.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"{path} has schema_version {content.get('schema_version')!r}; this version reads {SCHEMA_VERSION}. "
                "Pack the dataset again."
            )
        labels = LabelVocabulary.load(path.with_name(LABELS_FILE))
        if len(labels) != content["num_labels"]:
            raise ValueError(
                f"{path.with_name(LABELS_FILE)} has {len(labels)} names, {DATASET_FILE} says {content['num_labels']}: "
                "one of the two was changed after packing"
            )
        return cls(
            name=content["name"],
            labels=labels,
            multi_label=content["label_kind"] == "multi_label",
            text_fields={field: spec["derived_from_label"] for field, spec in content["text_fields"].items()},
            splits={split: [ShardInfo(**shard) for shard in entry["shards"]] for split, entry in content["splits"].items()},
            images=content["images"],
            statistics=content["statistics"],
            provenance=content["provenance"],
            ceilings=content["ceilings"],
        )
