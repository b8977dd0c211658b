"""Datasets of TensorFlow Datasets (TFDS). Options say which features are image, texts and label.

    FeaturesDict({"image": Image(…), "objects": Sequence({"label": ClassLabel(80)}), "captions": Sequence({"text": Text()})})
    --image=image --text=caption=captions/text --label=objects/label

- The dataset is a folder that TFDS prepared (…/coco_captions/2014/1.1.0), or the name ("coco/2017") of a dataset that was
  prepared in `data_dir`. Nothing is downloaded.
- A feature inside of others is given by its path. `caption=captions/text` gives a text field another name than its feature. If
  a feature holds several texts, so does the field.
- Images keep the bytes that TFDS stored. Labels are the names of a ClassLabel in its order (-1 stands for no label), or texts
  or numbers. A label inside of a Sequence makes the dataset multi-label.
- The ids of records are those of TFDS, "train.tfrecord-00000-of-00002__7", or the values of a feature. Splits are those of the
  dataset; "validation" becomes "val".

Needs tensorflow_datasets: pip install 'mm_keras[tfds]'
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrecords_tools.sources.command import SourceCommand, comma_list
from tfrecords_tools.sources.example import Rejection, Source, SourceExample
from tfrecords_tools.sources.files import SPLIT_NAMES, SourceError


@dataclasses.dataclass(frozen=True)
class Options:
    """The dataset to read, and the roles of its features.

    Attributes:
        dataset: the folder of a prepared dataset, or its name.
        image, label, id: the paths of features; None if there is no such feature. An id must be unique over all splits.
        text: maps text fields to the paths of their features.
        splits: the splits to read; None reads all.
        data_dir: the folder of datasets that are given by name; None is the default of TFDS.
    """

    dataset: str
    image: str | None = None
    text: dict[str, str] = dataclasses.field(default_factory=dict)
    label: str | None = None
    id: str | None = None
    splits: tuple[str, ...] | None = None
    data_dir: str | None = None


def make_source(options: Options) -> Source:
    """Declares a TFDS dataset as a source; its features are checked here.

    Raises:
        RuntimeError: if tensorflow_datasets is not installed.
        SourceError: if the dataset is not there, or lacks a feature or split.

    Example:
        >>> make_source(Options("coco_captions", image="image", text={"caption": "captions/text"}, label="objects/label"))
    """
    if not options.image and not options.text:
        raise SourceError("name an image feature (--image), text features (--text), or both")
    builder = _builder(options)
    label = None
    for path in filter(None, (options.image, options.label, options.id, *options.text.values())):
        feature, repeated = _feature(builder.info.features, path)
        if path == options.label:
            label = feature, repeated
    unknown = [split for split in options.splits or () if split not in builder.info.splits]
    if unknown:
        raise SourceError(f"{options.dataset} has no split {unknown[0]!r}; it has {sorted(builder.info.splits)}")
    chosen = dataclasses.asdict(options) | {"dataset": builder.info.full_name}
    del chosen["data_dir"]
    return Source(
        name="tfds",
        examples=lambda: iter_examples(options),
        text_fields=dict.fromkeys(options.text, False),
        multi_label=bool(label and label[1]),
        options=chosen,
        labels=_class_names(label[0]) if label else None,
    )


def iter_examples(options: Options) -> Iterator[SourceExample | Rejection]:
    """Yields the examples of the dataset, and rejections of those with values that a record cannot hold."""
    tfds = _tfds()
    builder = _builder(options)
    features = builder.info.features
    decoders: dict[str, Any] = {}
    if options.image and isinstance(_feature(features, options.image)[0], tfds.features.Image):
        place, (*folders, last) = decoders, options.image.split("/")
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = tfds.decode.SkipDecoding()
    names = _class_names(_feature(features, options.label)[0]) if options.label else None
    for split in options.splits or sorted(builder.info.splits):
        config = tfds.ReadConfig(add_tfds_id=True, try_autocache=False)
        examples = builder.as_dataset(split=split, decoders=decoders or None, read_config=config, shuffle_files=False)
        for number, values in enumerate(tfds.as_numpy(examples)):
            where = f"{options.dataset} {split}: example {number}"
            example_id = "".join(_texts(_value(values, options.id or "tfds_id")))
            try:
                yield SourceExample(
                    id=example_id,
                    where=where,
                    image=_image(_value(values, options.image)) if options.image else None,
                    texts={field: _texts(_value(values, path)) for field, path in options.text.items()},
                    labels=_labels(_value(values, options.label), names) if options.label else [],
                    split=SPLIT_NAMES.get(split, split),
                )
            except ValueError as error:
                yield Rejection(example_id, where, str(error))


def _tfds():
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise RuntimeError("TFDS datasets need tensorflow_datasets: pip install 'mm_keras[tfds]'") from error
    return tensorflow_datasets


def _builder(options: Options):
    tfds = _tfds()
    if (Path(options.dataset) / "dataset_info.json").is_file():
        return tfds.builder_from_directory(options.dataset)
    if Path(options.dataset).is_dir():
        raise SourceError(f"{options.dataset} holds no dataset_info.json; name the folder of a version, such as …/1.0.0")
    try:
        builder = tfds.builder(options.dataset, data_dir=options.data_dir)
    except Exception as error:  # TFDS looks names up over the network, and raises errors of its own and of others
        reason = " ".join(str(error).split())[:300]
        raise SourceError(
            f"TFDS has no dataset {options.dataset!r} here, and could not look it up ({type(error).__name__}: {reason}). "
            f"Prepare it where there is a network (tfds build {options.dataset}), and name the folder of its version: …/1.0.0"
        ) from error
    if not builder.info.splits:
        raise SourceError(
            f"{options.dataset} is not prepared in {builder.data_dir}; prepare it with: tfds build {options.dataset}"
        )
    return builder


def _feature(features, path: str) -> tuple[Any, bool]:
    """The feature at a path without the Sequences around it, and whether there are any Sequences."""
    feature, repeated = features, False
    for name in path.split("/"):
        feature, inside = _unwrap(feature)
        repeated |= inside
        known = sorted(feature) if hasattr(feature, "keys") else []
        if name not in known:
            raise SourceError(f"there is no feature {path!r}; beside {name!r} there are {known}")
        feature = feature[name]
    feature, inside = _unwrap(feature)
    return feature, repeated or inside


def _unwrap(feature) -> tuple[Any, bool]:
    sequence, repeated = _tfds().features.Sequence, False
    while isinstance(feature, sequence):
        feature, repeated = feature.feature, True
    return feature, repeated


def _class_names(feature) -> list[str] | None:
    return list(feature.names) if isinstance(feature, _tfds().features.ClassLabel) else None


def _value(values: dict, path: str) -> Any:
    for name in path.split("/"):
        values = values[name]
    return values


def _image(value: Any) -> bytes | None:
    """The stored bytes of an image. Pixels, which features without an encoding hold, are encoded as PNG."""
    if isinstance(value, bytes):
        return value or None
    import cv2

    if getattr(value, "dtype", None) != "uint8" or value.ndim != 3 or value.shape[-1] not in (1, 3):
        raise ValueError(f"no image: expected encoded bytes or uint8 [height, width, 1 or 3], found {type(value).__name__}")
    return cv2.imencode(".png", value[..., ::-1])[1].tobytes()


def _texts(value: Any) -> list[str]:
    """Turns a text, a number, or an array of these into a list of texts."""
    values = value.reshape(-1).tolist() if getattr(value, "ndim", 0) else [value]
    return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in values]


def _labels(value: Any, names: list[str] | None) -> list[str]:
    if names is None:
        return [text.strip() for text in _texts(value) if text.strip()]
    numbers = [int(number) for number in (value.reshape(-1) if getattr(value, "ndim", 0) else [value])]
    return list(dict.fromkeys(names[number] for number in numbers if number >= 0))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="the folder of a prepared dataset (…/1.0.0), or a name")
    parser.add_argument("--image", metavar="FEATURE", help="the image")
    parser.add_argument("--text", default="", metavar="[FIELD=]FEATURE,…", help="text features, and what to call their fields")
    parser.add_argument("--label", metavar="FEATURE", help="the label; inside a Sequence: several labels")
    parser.add_argument("--id", metavar="FEATURE", help="unique ids (default: TFDS' own)")
    parser.add_argument("--splits", default="", metavar="SPLIT,…", help="default: all")
    parser.add_argument("--data_dir", metavar="FOLDER", help="where named datasets lie")


def _source_of(options: argparse.Namespace) -> Source:
    pairs = [text.partition("=") for text in comma_list(options.text)]
    return make_source(
        Options(
            options.dataset,
            image=options.image,
            text={field: path if mark else field for field, mark, path in pairs},
            label=options.label,
            id=options.id,
            splits=comma_list(options.splits) or None,
            data_dir=options.data_dir,
        )
    )


COMMAND = SourceCommand(
    name="tfds",
    help="TensorFlow Datasets, by a mapping of features",
    epilog="""examples:
  tfrecords-tools pack tfds ~/tensorflow_datasets/oxford_iiit_pet/3.2.0 --image=image --label=label --output=data/pets
  tfrecords-tools pack tfds coco_captions --image=image --text=caption=captions/text --label=objects/label \\
      --output=data/coco

Needs tensorflow_datasets: pip install 'mm_keras[tfds]'
""",
    add_arguments=_add_arguments,
    make_source=_source_of,
)
