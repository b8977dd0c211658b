"""Opens the examples to predict: a table of any form that packing reads, a folder of pictures, or a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mm_keras.input_names import IMAGE, column_name
from mm_keras.runs.example_rows import Examples, InputOptions, Row
from mm_keras.runs.predict_table import open_table_examples
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.dataset.info import DATASET_FILE
from tfrecords_tools.dataset.schema import decode_example
from tfrecords_tools.dataset.shards import iter_records
from tfrecords_tools.sources.files import IMAGE_SUFFIXES, iter_images


def open_examples(
    path: Path,
    modalities: Sequence[str],
    options: InputOptions = InputOptions(),
    trained: Mapping[str, str] = MappingProxyType({}),
) -> Examples:
    """Finds out how a table or a folder gives the inputs of a run.

    Args:
        path: a table (see `tfrecords_tools.sources.table_file.KINDS`), a folder with pictures in and below it, or a dataset.
        modalities: the inputs of the run: "image" and text fields, as `FeatureSpec.modalities` names them.
        options: see `InputOptions`.
        trained: the columns `image`, `image_template` and `id` of the table that the run was trained on, which count where the
            new one has them and `options` name no others.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the input is no table, or gives none of the inputs; it says how to bind them.

    Example:
        >>> examples = open_examples(Path("new.csv"), ("image", "title"))
        >>> next(examples.rows)
        Row(id='new:2', inputs={'image': 'images/1.png', 'title': 'Solid oak'}, error='', number=1, kept={})
    """
    if path.is_dir():
        return _open_folder(path, modalities, options)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    return open_table_examples(path, modalities, options, trained)


def _open_folder(folder: Path, modalities: Sequence[str], options: InputOptions) -> Examples:
    is_dataset = (folder / DATASET_FILE).is_file()
    if options.columns or options.keep:
        kind = "packed dataset" if is_dataset else "folder of pictures"
        raise ValueError(f"{folder} is a {kind}; --image, --text and --keep name columns of a table")
    if is_dataset:
        return _open_dataset(Dataset.open(folder), modalities, options)
    if IMAGE not in modalities:
        raise ValueError(f"{folder} is a folder, and the run sees no pictures; its inputs are {list(modalities)}")
    if next(iter_images(folder), None) is None:
        raise ValueError(f"{folder} holds no pictures; their names end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    rows = (Row(path.relative_to(folder).as_posix(), {IMAGE: str(path)}) for path in iter_images(folder))
    texts = [name for name in modalities if name != IMAGE]
    notes = [f"{folder}: pictures alone; without texts for {', '.join(map(repr, texts))}"] if texts else []
    return Examples(folder.resolve().name, "pictures", rows, notes, () if options.allow_outside else (folder,))


def _open_dataset(dataset: Dataset, modalities: Sequence[str], options: InputOptions) -> Examples:
    texts = {name: column_name(name) for name in modalities if name != IMAGE}
    absent = [field for field in texts.values() if field not in dataset.info.text_fields]
    if absent and len(absent) == len(modalities):
        fields = sorted(dataset.info.text_fields)
        raise ValueError(f"{dataset.folder} has none of the run's inputs {list(modalities)}; its text fields are {fields}")
    splits = [dataset.split(name) for name in ([options.split] if options.split else dataset.info.splits)]

    def rows() -> Iterator[Row]:
        for file in itertools.chain.from_iterable(split.files for split in splits):
            for record in map(decode_example, iter_records(file)):
                inputs = {name: record.texts[field][0] for name, field in texts.items() if record.texts.get(field)}
                inputs |= {IMAGE: record.image} if record.image and IMAGE in modalities else {}
                error = "" if inputs else f"none of the run's inputs {list(modalities)} is in it"
                yield Row(record.id, inputs, error)

    notes = [f"{dataset.folder} has no field {', '.join(map(repr, absent))}: missing in all records"] if absent else []
    return Examples(dataset.folder.resolve().name, "records", rows(), notes)
