"""A report of a classifier on rows of a table: they are packed into a temporary dataset, which `mm_keras.report` reads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm_keras.estimator.data import Inputs, label_cells
from mm_keras.estimator.labels import LabelCodec, LabelForm
from mm_keras.estimator.packed_frames import Part, make_part
from mm_keras.features import FeatureSpec
from mm_keras.report.report import report
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.packing.images import ImageOptions
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import table

if TYPE_CHECKING:
    import pandas


def report_frame(
    run: RunFolder,
    inputs: Inputs,
    codec: LabelCodec,
    frame: pandas.DataFrame,
    root: Path,
    y: Any,
    form: LabelForm,
    path: str | Path,
) -> Path | None:
    """Writes the report of a run on rows.

    Args:
        run: the run folder of the classifier.
        inputs: the columns that are read.
        codec: the classes.
        frame: the rows.
        root: the folder of their relative image paths.
        y: their labels as for `label_cells`. None: there are none, and the page shows predictions and data alone.
        form: how labels are written.
        path: the page to write.
    """
    inputs.check(frame)
    absent = y is None
    part = Part(frame, root, []) if absent else make_part(frame, root, label_cells(frame, y, form)[0], codec)
    features = FeatureSpec.load(run.path)
    packable = _packable(inputs, part, not absent, features.multi_label)
    roles = table.Columns(
        image="_image" if inputs.image else None, text=inputs.texts, label=None if absent else "_label", id="_id"
    )
    source = table.make_source([packable], roles, multi_label=features.multi_label and not absent)
    images = ImageOptions(**run.facts().get("images") or {"short_side": None})
    options = PackOptions(images=images, fractions={"test": 1.0}, workers=1, allow_outside=True, max_bad_fraction=1.0)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        pack(source, rows, options, None if absent else LabelVocabulary(features.labels), progress=False)
        return report(run.path, dataset=str(rows), split="test", output=path)


def _packable(inputs: Inputs, part: Part, labelled: bool, several: bool) -> pandas.DataFrame:
    """The rows as a table to pack: `_id`, `_image`, `_label` and the text columns."""
    import pandas

    frame = part.frame
    columns: dict[str, list] = {"_id": [str(index) for index in frame.index]}
    if not frame.index.is_unique:
        columns["_id"] = [f"row-{number}" for number in range(len(frame))]
    if inputs.image:
        columns["_image"] = inputs.images(frame, part.root)
    for field in inputs.texts:
        columns[field] = list(frame[field])
    if labelled:
        columns["_label"] = [names if several else names[0] for names in part.labels]
    return pandas.DataFrame(columns)
