"""Predicts the labels of new examples: of one, of a table of any form that packing reads, or of a folder of pictures."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from mm_keras.features import IMAGE, FeatureSpec, safe_name
from mm_keras.runs.predict_input import Examples, InputOptions, Row, open_examples
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import ServingModule
from mm_keras.runs.thresholds import load_thresholds
from tfrecords_tools.dataset.atomic_file import atomic_file
from tfrecords_tools.packing.images import BadImageError, ImageOptions, prepare_image
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.files import IMAGE_SUFFIXES
from tfrecords_tools.sources.image_files import read_image_file

_BATCH_SIZE = 32


class Predictor:
    """A trained run that answers raw examples, as the exported model would.

    Args:
        workdir: the run folder.

    Attributes:
        model, features: the model, and what it takes in.
        thresholds: the probability [num_labels] above which a label of a multi-label run is predicted.

    Example:
        >>> predictor = Predictor("runs/products")
        >>> (answer,) = predictor([predictor.read({"image": "photo.jpg", "title": "Solid oak"})])
        >>> answer["labels"][0]
        'Furniture'
    """

    def __init__(self, workdir: str | Path):
        run = RunFolder(workdir)
        self.model, self.features = run.load_model()
        tuned = load_thresholds(run, self.features)
        self.thresholds = tuned.values if tuned else np.full(len(self.features.labels), 0.5)
        self._images = ImageOptions(**run.facts().get("images") or {"short_side": None})
        self._serve = ServingModule(self.model, self.features, self.thresholds, answer_empty=True).signature()

    def read(self, example: Mapping[str, str | float | bytes], image_roots: Sequence[Path] = ()) -> dict[str, bytes]:
        """Checks an example and reads its image.

        Args:
            example: some of the model's inputs by name: the path of the image or its encoded bytes, the texts, for which
                numbers may stand. Inputs that it leaves out are missing, and so are those of white space alone.
            image_roots: the folders in which an image file must lie; none: it may lie anywhere.

        Raises:
            ValueError: for an input that the model does not have, an example without any, or an image that is none.
            FileNotFoundError: for an image that does not exist.
        """
        given = {self.features.modality_of(name): value for name, value in example.items()}
        values = {name: _given(given.get(name), name) for name in self.features.modalities}
        encoded = values.pop(IMAGE) if isinstance(values.get(IMAGE), bytes) else b""
        not_text = [name for name, value in values.items() if not isinstance(value, str)]
        if not_text:
            raise ValueError(f"input {not_text[0]!r} must be text. Received: {values[not_text[0]]!r}")
        values = {name: value.strip() for name, value in values.items()}
        if not encoded and not any(values.values()):
            raise ValueError(f"the example has none of the model's inputs {list(self.features.modalities)}")
        raw = {name: value.encode() for name, value in values.items()}
        if encoded:
            raw[IMAGE] = as_packed(encoded, self._images, "the image")
        elif values.get(IMAGE):
            raw[IMAGE] = read_picture(values[IMAGE], self._images, image_roots)
        return raw

    def __call__(self, batch: Sequence[dict[str, bytes]]) -> list[dict]:
        """Answers examples that `read` has checked.

        Returns:
            for each example {"labels": [names], "probabilities": [floats]}, the most probable first. Multi-label runs add
            {"predicted": [names]}, all labels whose probability exceeds their threshold, in the order of their ids.
            {"error": reason} for an example that the model cannot answer.
        """
        answer = self._ask(batch)
        rows = zip(answer["labels"].numpy(), answer["probabilities"].numpy(), strict=True)
        answers = [
            {
                "labels": [label.decode() for label in labels],
                "probabilities": [round(float(probability), 6) for probability in probabilities],
            }
            for labels, probabilities in rows
        ]
        if self.features.multi_label:
            for prediction, predicted in zip(answers, answer["predicted"].numpy(), strict=True):
                prediction["predicted"] = [self.features.labels[index] for index in predicted.nonzero()[0]]
        errors = (error.decode() for error in answer["error"].numpy())
        return [{"error": error} if error else prediction for error, prediction in zip(errors, answers, strict=True)]

    def probabilities(self, batch: Sequence[dict[str, bytes]]) -> np.ndarray:
        """float32 [B, num_labels], of examples that `read` has checked."""
        return self._ask(batch)["scores"].numpy()

    def tensors(self, batch: Sequence[dict[str, bytes]]) -> dict[str, tf.Tensor]:
        """Examples that `read` has checked, as an export takes them: string [B] for each input by its `safe_name`."""
        return {safe_name(name): tf.constant([raw[name] for raw in batch]) for name in self.features.modalities}

    def _ask(self, batch: Sequence[dict[str, bytes]]) -> dict[str, tf.Tensor]:
        return self._serve(**self.tensors(batch))


def _given(value, name: str):
    """A given input as text; 0 is "0", and None and NaN are missing."""
    if value is None or value != value:
        return ""
    return str(value) if isinstance(value, int | float) and name != IMAGE else value


def read_picture(path: str | Path, options: ImageOptions, roots: Sequence[Path] = ()) -> bytes:
    """Reads the picture in a file as `as_packed` does.

    Raises:
        ValueError: if the file holds no picture, or may not be read.
        FileNotFoundError: if there is no such file.
    """
    return as_packed(read_image_file(path, roots), options, str(path))


def as_packed(encoded: bytes, options: ImageOptions, name: str) -> bytes:
    """A picture as packing stores it, so that the model sees what it saw in training.

    Args:
        encoded: a picture of any format that can be packed.
        options: how the pictures that the model was trained on were packed.
        name: what messages call it.

    Returns:
        the upright JPEG that a record would hold.

    Raises:
        ValueError: for bytes that are no picture, or one that is too large.
    """
    try:
        return prepare_image(encoded, options).data
    except BadImageError as error:
        raise ValueError(f"{name}: {error}") from error


def predict(
    workdir: str | Path,
    example: Mapping[str, str] | None = None,
    examples_file: str | Path | None = None,
    options: InputOptions = InputOptions(),
    output: str | Path | None = None,
) -> Path | None:
    """Predicts one example and prints it, or those of a table or a folder of pictures, and writes a JSON object for each.

    Args:
        workdir: the run folder.
        example: inputs of one example: {"image": "photo.jpg", "title": "…"}.
        examples_file: a table in any form that packing reads, whose columns are bound to the run's inputs by name, or a folder
            of pictures; see `open_examples`. Of one picture the answer is printed.
        options: how the table is bound and read.
        output: the file to write; default: <name>.predictions.jsonl beside `examples_file`. Its objects hold the row's `id` and
            what `Predictor` answers; a row that cannot be read gets {"id": …, "error": …} in its place, and the others go on.

    Returns:
        the file written, if any.

    Raises:
        ValueError: if neither or both are given, if the one example is bad, or if nothing could be predicted.

    Example:
        >>> predict("runs/products", examples_file="new.csv")
        PosixPath('new.predictions.jsonl')
    """
    if bool(example) == bool(examples_file):
        raise ValueError(
            "give one example (--image=photo.jpg --text='title=…'), or a table or folder of examples (new.csv, or in run.py "
            "--examples=FILE.jsonl)"
        )
    source = Path(examples_file) if examples_file else None
    if source and source.suffix.lower() in IMAGE_SUFFIXES and not source.is_dir():
        if options.columns:
            raise ValueError(f"{source} is one picture, and --image names another, or a column of a table")
        example = {IMAGE: str(source)}
    if example:
        predictor = Predictor(workdir)
        (answer,) = predictor([predictor.read(example)])
        if "error" in answer:
            raise ValueError(answer["error"])
        for label, probability in zip(answer["labels"], answer["probabilities"], strict=True):
            print(f"{probability:8.4f}  {label}")
        return None
    examples = open_examples(source, FeatureSpec.load(Path(workdir)).modalities, options)
    for note in examples.notes:
        print(note)
    output = Path(output) if output else source.resolve().with_name(f"{examples.stem}.predictions.jsonl")
    if output.exists() and source.samefile(output):
        raise ValueError(f"--output={output} is the input itself")
    _predict_all(Predictor(workdir), examples, output)
    return output


def _predict_all(predictor: Predictor, examples: Examples, output: Path) -> None:
    """Writes an answer for each row, and tells how many there are; raises ValueError if no row could be predicted."""
    num_good = num_bad = 0
    first_error = ""
    with (
        atomic_file(output) as path,
        open(path, "w", encoding="utf-8", errors="backslashreplace") as file,
        progress_bar("predicting", "examples") as bar,
    ):
        while batch := list(itertools.islice(examples.rows, _BATCH_SIZE)):
            for row, answer in zip(batch, _answer_rows(predictor, batch, examples.image_roots), strict=True):
                num_bad += row.number if "error" in answer else 0
                num_good += "error" not in answer
                first_error = first_error or answer.get("error", "")
                file.write(json.dumps({"id": row.id, **answer}, ensure_ascii=False) + "\n")
            bar.update(len(batch))
    print(f"{output}: {num_good:,} predictions, {num_bad:,} bad {examples.unit}")
    if not num_good:
        what = f"all {num_bad:,} {examples.unit} are bad, the first: {first_error}" if num_bad else "the input is empty"
        raise ValueError(f"nothing was predicted: {what}")


def _answer_rows(predictor: Predictor, rows: Sequence[Row], image_roots: Sequence[Path] = ()) -> list[dict]:
    """An answer, or {"error": …}, for each row."""
    answers: list[dict] = [{"error": row.error} for row in rows]
    batch, places = [], []
    for place, row in enumerate(rows):
        if not row.error:
            try:
                batch.append(predictor.read(row.inputs, image_roots))
                places.append(place)
            except Exception as error:  # whatever is wrong with one row's picture, the others go on
                answers[place] = {"error": _told(error)}
    for place, answer in zip(places, _answer_each(predictor, batch), strict=True):
        answers[place] = answer
    return answers


def _answer_each(predictor: Predictor, batch: Sequence[dict[str, bytes]]) -> list[dict]:
    """The answers of a batch; where the model refuses it, of each example alone, so that one takes no other along."""
    try:
        return predictor(batch) if batch else []
    except tf.errors.OpError as error:
        if len(batch) == 1:
            return [{"error": _told(error)}]
    return [answer for raw in batch for answer in _answer_each(predictor, [raw])]


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {lines[0]}"
