"""Predicts the labels of new examples: of one, of a table that packing reads, a folder of pictures, or a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from mm_keras.features import IMAGE, FeatureSpec, safe_name
from mm_keras.runs.example_rows import InputOptions
from mm_keras.runs.predict_input import open_examples
from mm_keras.runs.predict_many import Wanted, predict_all
from mm_keras.runs.predictions_file import Layout, Parts, check_output
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import ServingModule
from mm_keras.runs.thresholds import load_thresholds
from tfrecords_tools.dataset.info import DATASET_FILE
from tfrecords_tools.packing.images import BadImageError, ImageOptions, prepare_image
from tfrecords_tools.sources.files import IMAGE_SUFFIXES, iter_images
from tfrecords_tools.sources.image_files import read_image_file


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
        thresholds = load_thresholds(run, self.features)
        self.thresholds = thresholds.values if thresholds else np.full(len(self.features.labels), 0.5)
        self._images = ImageOptions(**run.facts().get("images") or {"short_side": None})
        self._module = ServingModule(self.model, self.features, self.thresholds, answer_empty=True)
        self._serve = self._module.signature()

    def read(self, example: Mapping[str, str | float | bytes], image_roots: Sequence[Path] = ()) -> dict[str, bytes]:
        """Checks an example and reads its image.

        Args:
            example: some of the model's inputs by name: the image as a path or as encoded bytes, the texts as texts or
                numbers. Inputs that are left out are missing, and so are those of white space alone.
            image_roots: the folders in which an image file must lie; none: it may lie anywhere.

        Raises:
            ValueError: for an input that the model does not have, an example without any, or an image that is none.
            FileNotFoundError: for an image that does not exist.
        """
        inputs = {self.features.modality_of(name): value for name, value in example.items()}
        values = {name: _given(inputs.get(name), name) for name in self.features.modalities}
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

    def __call__(self, batch: Sequence[dict[str, bytes]], top: int | None = 5, embed: str | None = None) -> list[dict]:
        """Answers examples that `read` has checked.

        Args:
            batch: the examples.
            top: how many labels an answer has; None: all.
            embed: adds {"embedding": [floats]}, as `embeddings` makes it.

        Returns:
            for each example {"labels": [names], "probabilities": [floats]}, the most probable first. Multi-label runs add
            {"predicted": [names]}, all labels whose probability exceeds their threshold, in the order of their ids.
            {"error": reason} for an example that the model cannot answer.
        """
        answer = {name: value.numpy() for name, value in (self._embed(batch, embed) if embed else self._ask(batch)).items()}
        order = np.argsort(-answer["scores"], axis=1, kind="stable")[:, :top]
        labels, answers = self.features.labels, []
        for row, indices in enumerate(order):
            if answer["error"][row]:
                answers.append({"error": answer["error"][row].decode()})
                continue
            probabilities = answer["scores"][row]
            answers.append(
                {
                    "labels": [labels[index] for index in indices],
                    "probabilities": [round(float(probabilities[index]), 6) for index in indices],
                }
            )
            if self.features.multi_label:
                answers[-1]["predicted"] = [labels[index] for index in answer["predicted"][row].nonzero()[0]]
            if embed:
                answers[-1]["embedding"] = answer["embedding"][row].tolist()
        return answers

    def probabilities(self, batch: Sequence[dict[str, bytes]]) -> np.ndarray:
        """float32 [B, num_labels], of examples that `read` has checked."""
        return self._ask(batch)["scores"].numpy()

    def embeddings(self, batch: Sequence[dict[str, bytes]], of: str = "fused") -> np.ndarray:
        """Embeddings float32 [B, D] of examples that `read` has checked.

        Args:
            batch: the examples.
            of: "fused", for all inputs together; or an input, for its tuned embedding, which is zeros where it is missing.

        Raises:
            ValueError: for another name, or a late fusion, which has no fused embedding.
        """
        return self._embed(batch, of)["embedding"].numpy()

    def tensors(self, batch: Sequence[dict[str, bytes]]) -> dict[str, tf.Tensor]:
        """Examples that `read` has checked, as an export takes them: string [B] for each input by its `safe_name`."""
        return {safe_name(name): tf.constant([raw[name] for raw in batch]) for name in self.features.modalities}

    def _ask(self, batch: Sequence[dict[str, bytes]]) -> dict[str, tf.Tensor]:
        return self._serve(**self.tensors(batch))

    def _embed(self, batch: Sequence[dict[str, bytes]], of: str) -> dict[str, tf.Tensor]:
        """What `_ask` gives, and "embedding" float32 [B, D]."""
        names = {"fused": "fused"} | {name: f"{safe_name(name)}_embedding" for name in self.features.modalities}
        if of not in names:
            raise ValueError(f"there are embeddings of {', '.join(map(repr, names))}. Received: {of!r}")
        answer = self._module.answers_and_embeddings()(**self.tensors(batch))
        return answer | {"embedding": answer[names[of]]}


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
    wanted: Wanted = Wanted(),
) -> Path | None:
    """Predicts one example and prints it, or all of a table, a folder of pictures or a dataset, and writes their answers.

    Args:
        workdir: the run folder.
        example: inputs of one example: {"image": "photo.jpg", "title": "…"}.
        examples_file: a table in any form that packing reads, a folder of pictures, or a packed dataset; see `open_examples`.
            The answer to a single picture is printed.
        options: how a table is bound to the inputs and read.
        output: the file to write, JSON Lines, CSV or Parquet by its name; default: <name>.predictions.jsonl beside
            `examples_file`. Each row has its `id` and what `Predictor` answers; a row that cannot be read gets its `error`
            in its place, and the others go on. A prediction that was cut off goes on when it is asked for again.
        wanted: what an answer holds.

    Returns:
        the file written, if any.

    Raises:
        ValueError: if neither or both of `example` and `examples_file` are given, if the one example is bad, or if nothing
            could be predicted.

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
        _print_answer(Predictor(workdir), example, wanted)
        return None
    run = RunFolder(workdir)
    features = FeatureSpec.load(run.path)
    examples = open_examples(source, features.modalities, options, run.facts().get("columns", {}))
    for note in examples.notes:
        logging.info(note)
    output = Path(output) if output else source.resolve().with_name(f"{examples.stem}.predictions.jsonl")
    check_output(output)
    if output.exists() and source.samefile(output):
        raise ValueError(f"--output={output} is the input itself")
    parts = Parts(output, (_state(run.best), _state(source), options, wanted))
    if parts.counts.rows:
        logging.info(f"{parts.counts.rows:,} {examples.unit} are answered already; going on behind them")
    layout = Layout(features.labels, features.multi_label, wanted.top, wanted.embed is not None, examples.kept)
    counts = predict_all(Predictor(workdir), examples, parts, layout, wanted)
    logging.info(f"{output}: {counts.good:,} predictions, {counts.bad:,} bad {examples.unit}")
    return output


def _print_answer(predictor: Predictor, example: Mapping[str, str], wanted: Wanted) -> None:
    (answer,) = predictor([predictor.read(example)], wanted.top, wanted.embed)
    if "error" in answer:
        raise ValueError(answer["error"])
    for label, probability in zip(answer["labels"], answer["probabilities"], strict=True):
        logging.info(f"{probability:8.4f}  {label}")
    if wanted.embed:
        logging.info(f"{wanted.embed}: {json.dumps(answer['embedding'])}")


def _state(path: Path) -> tuple:
    """A value that differs if a file, or one of the files of a folder, has changed."""
    files = iter_images(path) if path.is_dir() else [path] if path.exists() else []
    files = [path / DATASET_FILE] if (path / DATASET_FILE).is_file() else files
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(repr((str(file), status.st_size, status.st_mtime_ns)).encode("utf-8", "surrogateescape"))
    return str(path.resolve()), digest.hexdigest()
