"""The embedded sample data as a dataset folder, packed when it is first asked for."""

from __future__ import annotations

from pathlib import Path

from tfrecords_tools.dataset_info import DATASET_FILE, DatasetInfo
from tfrecords_tools.pack import PackOptions, pack
from tfrecords_tools.sources import sample


def sample_dataset(folder: str = "data/sample", num_examples: int = 4000, seed: int = 0, multi_label: bool = False) -> str:
    """Packs the drawn sample into `folder`, or finds it there, and returns the folder.

    Args:
        folder: the dataset folder.
        num_examples, seed, multi_label: see `tfrecords_tools.sources.sample.make_source`.

    Raises:
        ValueError: if the folder holds another dataset.
    """
    source = sample.make_source(num_examples, seed, multi_label)
    if (Path(folder) / DATASET_FILE).is_file():
        provenance = DatasetInfo.load(folder).provenance
        if (provenance["source"], provenance["source_options"]) != (source.name, source.options):
            raise ValueError(
                f"{folder} holds another dataset ({provenance['source']} {provenance['source_options']}); "
                "bind sample_dataset.folder to another folder, or delete it"
            )
        return folder
    print(f"packing the sample data into {folder}")
    pack(source, folder, PackOptions(fractions={"train": 0.7, "val": 0.1, "test": 0.2}, seed=seed))
    return folder
