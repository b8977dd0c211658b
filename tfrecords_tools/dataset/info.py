"""dataset.json, the description of a packed dataset. A folder that holds one is complete."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.checksums import check
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.dataset.schema import SCHEMA_VERSION

DATASET_FILE = "dataset.json"
LABELS_FILE = "labels.txt"
REJECTED_FILE = "rejected.jsonl"
CROISSANT_FILE = "croissant.json"
CLASS_DESCRIPTIONS_FILE = "class_descriptions.jsonl"


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One shard: its file name in the dataset folder, its number of records, its size in bytes, and its sha256 in hex."""

    file: str
    num_examples: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass
class DatasetInfo:
    """The contents of dataset.json, and of labels.txt beside it.

    Attributes:
        name: the name of the dataset, which is that of its folder when it was packed.
        labels: the label vocabulary.
        multi_label: whether a record may carry several labels.
        text_fields: maps each text field to whether its text is derived from the label.
        splits: maps each split to its shards, in order.
        images: how images were stored (`ImageOptions` as a dict).
        statistics: maps each split to its counts of examples, missing images and texts, and labels.
        provenance: what the dataset was packed from and how: source, options, seed, versions, files with their sha256.
        ceilings: maps the modalities that a model sees to the best accuracy to expect; known only for the drawn sample.

    Example:
        >>> info = DatasetInfo.load("data/products")
        >>> info.num_examples("train"), info.labels.names[:2]
        (840, ['kitchen', 'lamps'])
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
        """The number of records of a split."""
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
        """Writes labels.txt and then dataset.json, which appears as a whole or not at all."""
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
            FileNotFoundError: if the folder holds no dataset.json.
            DamagedFileError: if dataset.json or labels.txt is not what was written.
            ValueError: if it was written by another version of the schema, or its files do not belong together.
        """
        path = Path(folder) / DATASET_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: {str(folder)!r} is no dataset folder, or its packing did not finish. "
                "Pack one with: tfrecords-tools pack --help"
            )
        check(path)
        try:
            content = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{path} has schema_version {version!r}; this version reads {SCHEMA_VERSION}. "
                "Pack the dataset again: tfrecords-tools pack --help"
            )
        try:
            return cls._of(content, path)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} lacks something, or has it in another form: {type(error).__name__}: {error}. Put back a copy of the "
                "file, or pack the dataset again"
            ) from error

    @classmethod
    def _of(cls, content: dict, path: Path) -> DatasetInfo:
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
