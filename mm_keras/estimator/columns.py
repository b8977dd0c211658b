"""What a run folder says of the columns and classes of a classifier, beside what every run says: classifier.json."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from mm_keras.estimator.labels import LabelCodec
from mm_keras.features import IMAGE, FeatureSpec
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.atomic_file import write_text

_FILE = "classifier.json"


def label_columns(y: Any, examples: Any) -> str | list[str] | None:
    """The label columns that `y` names, as `fit` takes it; None if `y` holds the labels themselves.

    Args:
        y: a column, several columns, or the labels.
        examples: the DataFrame that may have these columns; of a file or a dataset folder, any name may be one.
    """
    if isinstance(y, str) or not isinstance(y, list | tuple) or len(y) < 2:
        return y if isinstance(y, str) else None
    columns = getattr(examples, "columns", y)
    return list(y) if all(isinstance(name, str) and name in columns for name in y) else None


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a classifier, and its classes.

    Attributes:
        image: the column of pictures; None: there is none.
        texts: the text columns.
        label: the label column, or the columns of one label each; None: the labels did not stand in columns.
        codec: the classes.
    """

    image: str | None
    texts: tuple[str, ...]
    label: str | list[str] | None
    codec: LabelCodec

    def save(self, run: RunFolder) -> None:
        """Writes classifier.json, and the columns into run.json."""
        facts = {
            "image": self.image,
            "texts": self.texts,
            "label": self.label,
            "classes": self.codec.classes.tolist(),
            "multi_label": self.codec.multi_label,
        }
        write_text(run.path / _FILE, json.dumps(facts, indent=2) + "\n")
        names = {"image": self.image, "labels" if isinstance(self.label, list) else "label": self.label}
        run.save_facts(**run.facts() | {"columns": {name: column for name, column in names.items() if column}})

    @classmethod
    def load(cls, run: RunFolder) -> Columns:
        """Reads classifier.json; for a run of the command line, what run.json and features.json say.

        Raises:
            FileNotFoundError: if there is no run.
        """
        path = run.path / _FILE
        if path.is_file():
            facts = json.loads(path.read_text("utf-8"))
            codec = LabelCodec.of(facts["classes"], facts["multi_label"])
            return cls(facts["image"], tuple(facts["texts"]), facts["label"], codec)
        features = FeatureSpec.load(run.path)
        codec = LabelCodec.of(features.labels, features.multi_label)
        columns = run.facts().get("columns", {})
        image = columns.get("image", IMAGE) if features.image else None
        label = columns.get("label", columns.get("labels"))
        return cls(image, tuple(text.field for text in features.texts), label, codec)
