"""A dataset folder that has been opened: dataset.json is read once, and code passes the opened dataset instead of its path."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tfrecords_tools.dataset import checksums, tfds_files
from tfrecords_tools.dataset.index import INDEX_FOLDER
from tfrecords_tools.dataset.info import (
    CROISSANT_FILE,
    DATASET_FILE,
    LABELS_FILE,
    REJECTED_FILE,
    DatasetInfo,
    ShardInfo,
)
from tfrecords_tools.dataset.shards import CorruptShardError

DESCRIPTIONS = (
    *(DATASET_FILE, LABELS_FILE, REJECTED_FILE, CROISSANT_FILE),
    *(tfds_files.FEATURES_FILE, tfds_files.INFO_FILE, tfds_files.NAMES_FILE),
)


def write_checksums(folder: Path, of_index: Mapping[str, str] | None = None) -> None:
    """Writes the checksums.sha256 of a complete dataset folder. It does not list the shards, whose sha256 is in dataset.json.

    Args:
        folder: the dataset folder.
        of_index: the sha256 of the files of the index in hex, by their paths in the folder; None: the files are read.
    """
    files = [name for name in DESCRIPTIONS if (folder / name).is_file()]
    if of_index is None:
        files += [path.relative_to(folder).as_posix() for path in sorted(folder.glob(f"{INDEX_FOLDER}/*.parquet"))]
    checksums.begin(folder, "tfrecords-tools verify", files, of_index)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset folder and its description.

    Attributes:
        folder: the dataset folder.
        info: the contents of its dataset.json and labels.txt.

    Example:
        >>> test = Dataset.open("data/products").split("test")  # or Split.open("data/products", "test")
        >>> test.num_examples, test.files[0].name
        (210, 'test-00000-of-00001.tfrecord')
    """

    folder: Path
    info: DatasetInfo

    @classmethod
    def open(cls, dataset: str | Path | Dataset) -> Dataset:
        """Reads the description of a dataset folder; a dataset that is open already is returned as it is.

        Raises:
            FileNotFoundError: if the folder holds no dataset.json.
            ValueError: if dataset.json cannot be read by this version.
        """
        return dataset if isinstance(dataset, Dataset) else cls(Path(dataset), DatasetInfo.load(dataset))

    def split(self, name: str) -> Split:
        """One split of the dataset.

        Raises:
            ValueError: for a split that the dataset does not have; the message lists those that it has.
        """
        self.info.shards(name)
        return Split(self, name)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split of a dataset.

    Attributes:
        dataset: the dataset that it belongs to.
        name: its name, such as "train".
    """

    dataset: Dataset
    name: str

    @classmethod
    def open(cls, dataset: str | Path | Dataset, name: str) -> Split:
        """One split of a dataset, or of a dataset folder; it raises what `Dataset.open` and `Dataset.split` raise."""
        return Dataset.open(dataset).split(name)

    @property
    def shards(self) -> list[ShardInfo]:
        """Its shards, in order."""
        return self.dataset.info.shards(self.name)

    @property
    def files(self) -> list[Path]:
        """The paths of its shards, in order."""
        return [self.dataset.folder / shard.file for shard in self.shards]

    def check_files(self) -> None:
        """Checks that each shard is there with the size that dataset.json says, without reading the shards.

        Raises:
            CorruptShardError: it names the first shard that is missing or of another size, and says what to do.
        """
        for shard, path in zip(self.shards, self.files, strict=True):
            size = path.stat().st_size if path.is_file() else None
            if size != shard.num_bytes:
                problem = "it is missing" if size is None else f"it has {size:,} bytes, {DATASET_FILE} says {shard.num_bytes:,}"
                raise CorruptShardError(f"{path} is damaged: {problem}. {self.how_to_mend()}")

    def how_to_mend(self) -> str:
        """What can be done about a damaged shard, as a sentence for messages."""
        return (
            f"`tfrecords-tools verify {self.dataset.folder}` lists all damage; bring the shard back from a copy, or pack the "
            "dataset again"
        )

    @property
    def num_examples(self) -> int:
        """The number of its records, with and without labels."""
        return self.dataset.info.num_examples(self.name)

    @property
    def num_labelled(self) -> int:
        """The number of its records that can be learned from or measured on.

        In a multi-label dataset all records are: a record without labels says that none of the labels applies.
        """
        info = self.dataset.info
        unlabelled = 0 if info.multi_label else info.statistics.get(self.name, {}).get("without_label", 0)
        return self.num_examples - unlabelled

    @property
    def label_counts(self) -> list[int]:
        """How many of its records carry each label, by label id."""
        return self.dataset.info.label_counts(self.name)
