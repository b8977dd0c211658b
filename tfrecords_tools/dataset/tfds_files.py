"""Writes the files with which TensorFlow Datasets reads a dataset folder: `tfds.builder_from_directory("data/products")`.

    features.json, label-ids.labels.txt    the types of the records' features
    dataset_info.json                      the shards of each split

Examples are nested by the names of their features: `example["image"]["encoded"]`, `example["text"]["title"]`. A text field is a
sequence of texts. `label/ids` is a single class if every record has exactly one label, and otherwise a sequence. Images are
decoded if every record has one; otherwise they are encoded bytes, which are empty where there is no image.
"""

from __future__ import annotations

import json
from pathlib import Path

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.info import DatasetInfo

FEATURES_FILE, INFO_FILE, NAMES_FILE = "features.json", "dataset_info.json", "label-ids.labels.txt"
_TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


def write(info: DatasetInfo, folder: Path) -> None:
    """Writes the three files into `folder`."""
    write_text(folder / NAMES_FILE, "".join(f"{name}\n" for name in info.labels.names))
    _write_json(folder / FEATURES_FILE, _features(info))
    splits = [
        {
            "name": split,
            "shardLengths": [str(shard.num_examples) for shard in shards],
            "numBytes": str(sum(shard.num_bytes for shard in shards)),
            "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
        }
        for split, shards in info.splits.items()
    ]
    _write_json(folder / INFO_FILE, {"name": info.name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": splits})


def _write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _features(info: DatasetInfo) -> dict:
    def never(count: str) -> bool:
        return not any(statistics[count] for statistics in info.statistics.values())

    names = {
        "classLabel": {"numClasses": str(len(info.labels))},
        "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
    }
    image = {
        "image": {"dtype": "uint8", "encodingFormat": "jpeg", "shape": {"dimensions": ["-1", "-1", "3"]}},
        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
    }
    texts = {"text": _dict({field: _sequence(_TEXT) for field in info.text_fields})} if info.text_fields else {}
    return _dict(
        {
            "id": _TEXT,
            "image": _dict(
                {
                    "encoded": image if never("without_image") else _TEXT,
                    "height": _scalar("int64"),
                    "width": _scalar("int64"),
                }
            ),
            **texts,
            "label": _dict({"ids": _sequence(names) if info.multi_label or not never("without_label") else names}),
            "weight": _scalar("float32"),
        }
    )


def _dict(features: dict) -> dict:
    return {
        "featuresDict": {"features": features},
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    }


def _sequence(feature: dict) -> dict:
    return {
        "sequence": {"feature": feature, "length": "-1"},
        "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
    }


def _scalar(dtype: str) -> dict:
    return {
        "tensor": {"dtype": dtype, "encoding": "none", "shape": {}},
        "pythonClassName": "tensorflow_datasets.core.features.scalar.Scalar",
    }
