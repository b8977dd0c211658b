"""Predicts the labels of new examples, one by one or from a JSON Lines file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from mm_keras.features import IMAGE
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import ServingModule
from mm_keras.runs.thresholds import load_thresholds
from tfrecords_tools.packing.images import BadImageError, ImageOptions, prepare_image
from tfrecords_tools.progress import progress_bar
from tfrecords_tools.sources.image_files import read_image_file

_BATCH_SIZE = 32


class Predictor:
    """A trained run that answers raw examples, as the exported model would.

    Args:
        workdir: the run folder.

    Example:
        >>> predictor = Predictor("runs/products")
        >>> (answer,) = predictor([predictor.read({"image": "photo.jpg", "title": "Solid oak"})])
        >>> answer["labels"][0]
        'Furniture'
    """

    def __init__(self, workdir: str | Path):
        run = RunFolder(workdir)
        model, self.features = run.load_model()
        thresholds = load_thresholds(run, self.features)
        self._images = ImageOptions(**run.facts().get("images") or {"short_side": None})
        self._serve = ServingModule(model, self.features, thresholds and thresholds.values).signature()

    def read(self, example: Mapping[str, str], image_roots: Sequence[Path] = ()) -> dict[str, bytes]:
        """Checks an example and reads its image.

        Args:
            example: some of the model's inputs by name: the path of the image, the texts. Inputs that it leaves out are
                missing, and so are those of white space alone.
            image_roots: the folders in which the image must lie; none: it may lie anywhere.

        Raises:
            ValueError: for an input that the model does not have, an example without any, or an image that is none.
            FileNotFoundError: for an image that does not exist.
        """
        unknown = sorted(set(example) - set(self.features.modalities))
        if unknown:
            raise ValueError(f"the model has no input {unknown[0]!r}; its inputs are {list(self.features.modalities)}")
        values = {name: "" if example.get(name) is None else example[name] for name in self.features.modalities}
        not_text = [name for name, value in values.items() if not isinstance(value, str)]
        if not_text:
            raise ValueError(f"input {not_text[0]!r} must be text. Received: {values[not_text[0]]!r}")
        values = {name: value.strip() for name, value in values.items()}
        if not any(values.values()):
            raise ValueError(f"the example has none of the model's inputs {list(self.features.modalities)}")
        raw = {name: value.encode() for name, value in values.items()}
        if values.get(IMAGE):
            raw[IMAGE] = read_picture(Path(values[IMAGE]), self._images, image_roots)
        return raw

    def __call__(self, batch: Sequence[dict[str, bytes]]) -> list[dict]:
        """Answers examples that `read` has checked.

        Returns:
            for each example {"labels": [names], "probabilities": [floats]}, the most probable first. Multi-label runs add
            {"predicted": [names]}, all labels whose probability exceeds their threshold, in the order of their ids.
            {"error": reason} for an example that the model cannot answer.
        """
        answer = self._serve(**{name: tf.constant([raw[name] for raw in batch]) for name in self.features.modalities})
        rows = zip(answer["top_labels"].numpy(), answer["top_probabilities"].numpy(), strict=True)
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


def read_picture(path: Path, options: ImageOptions, roots: Sequence[Path] = ()) -> bytes:
    """Reads the picture in a file as packing does, so that the model sees what it saw in training.

    Args:
        path: a file of any format that can be packed.
        options: how the pictures that the model was trained on were packed.
        roots: the folders in which the file must lie; none: it may lie anywhere.

    Returns:
        the upright JPEG that a record would hold.

    Raises:
        ValueError: if the file holds no picture, or may not be read.
        FileNotFoundError: if there is no such file.
    """
    try:
        return prepare_image(read_image_file(path, roots), options).data
    except BadImageError as error:
        raise ValueError(f"{path}: {error}") from error


def predict(
    workdir: str | Path,
    example: Mapping[str, str] | None = None,
    examples_file: str | None = None,
    allow_outside: bool = False,
) -> Path | None:
    """Predicts one example and prints it, or a JSON Lines file, next to which it writes <name>.predictions.jsonl.

    Args:
        workdir: the run folder.
        example: inputs of one example: {"image": "photo.jpg", "title": "…"}.
        examples_file: a .jsonl file with such an object a line; image paths are relative to it, and may not lead out of its
            folder. A line that cannot be read gets {"error": …} in its place, and the others go on.
        allow_outside: whether images may lie outside of the file's folder.

    Returns:
        the file written, if any.

    Raises:
        ValueError: if neither or both are given, or the one example is bad.
    """
    if bool(example) == bool(examples_file):
        raise ValueError("give one example (--image=photo.jpg --text='title=…'), or a file of examples (--examples=FILE.jsonl)")
    predictor = Predictor(workdir)
    if example:
        (answer,) = predictor([predictor.read(example)])
        if "error" in answer:
            raise ValueError(answer["error"])
        for label, probability in zip(answer["labels"], answer["probabilities"], strict=True):
            print(f"{probability:8.4f}  {label}")
        return None
    source = Path(examples_file)
    output = source.with_suffix(".predictions.jsonl")
    text = source.read_text("utf-8-sig").removesuffix("\n")
    lines = text.split("\n") if text else []  # splitlines() would cut inside of texts, at U+2028 for one
    num_bad = 0
    with open(output, "w", encoding="utf-8") as file, progress_bar("predicting", "examples", len(lines)) as bar:
        for start in range(0, len(lines), _BATCH_SIZE):
            chunk = lines[start : start + _BATCH_SIZE]
            answers = _answer_lines(predictor, chunk, source.parent, allow_outside)
            num_bad += sum("error" in answer for answer in answers)
            file.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
            bar.update(len(chunk))
    print(f"{output}: {len(lines) - num_bad:,} predictions, {num_bad:,} bad lines")
    return output


def _answer_lines(predictor: Predictor, lines: Sequence[str], folder: Path, allow_outside: bool) -> list[dict]:
    """An answer, or {"error": …}, for each line."""
    answers: list[dict] = []
    batch, places = [], []
    for line in lines:
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"expected a JSON object. Received: {line[:80]}")
            if isinstance(row.get(IMAGE), str) and row[IMAGE].strip():
                row[IMAGE] = str(folder / row[IMAGE].strip())
            batch.append(predictor.read(row, () if allow_outside else (folder,)))
            places.append(len(answers))
            answers.append({})
        except (ValueError, OSError) as error:
            answers.append({"error": str(error)})
    for place, answer in zip(places, predictor(batch) if batch else [], strict=True):
        answers[place] = answer
    return answers
