"""Opens tables of examples to predict: finds which columns are which inputs of the run, and reads their rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mm_keras.input_names import IMAGE, column_name, input_name
from mm_keras.runs.example_rows import Examples, InputOptions, Row
from mm_keras.runs.predictions_file import ANSWERS
from tfrecords_tools.sources.files import IMAGE_SUFFIXES
from tfrecords_tools.sources.table_cells import texts_of
from tfrecords_tools.sources.table_file import TextFormat
from tfrecords_tools.sources.table_images import COLLECT, ImageCells, is_file, is_url, template_columns
from tfrecords_tools.sources.table_rows import Table, TableError, open_table
from tfrecords_tools.sources.text_rows import BadRow

_SAMPLE = 100
_ID = "id"


def open_table_examples(path: Path, modalities: Sequence[str], options: InputOptions, trained: Mapping[str, str]) -> Examples:
    """Finds out how a table gives the inputs of a run; the arguments are those of `open_examples`."""
    table = open_table(path, TextFormat(options.encoding, options.delimiter, options.quotes, lenient=True))
    options = _as_trained(table, options, trained if IMAGE in modalities else {"id": trained.get("id")})
    bound, images, notes = _bind(table, modalities, options)
    if table.read_as:
        notes.insert(0, table.read_as)
    id_column = _id_column(table, options)
    kept = _kept(table, options, {*bound.values(), images and images.column, id_column})
    rows = _Rows(table, modalities, bound, images, id_column, kept)
    unit = "lines" if table.kind == "json lines" else "rows"
    roots = () if options.allow_outside else (Path(options.image_root) if options.image_root else table.folder,)
    types = _types(path, kept) if table.kind == "parquet" else dict.fromkeys(kept.values())
    return Examples(table.stem, unit, iter(rows), [f"{table.name}: {note}" for note in notes], roots, types)


def _as_trained(table: Table, options: InputOptions, trained: Mapping[str, str]) -> InputOptions:
    """The options, with the columns that the run was trained on where the options name none."""
    columns = {name: column for name, column in trained.items() if name in ("image", "id") and column in table.columns}
    template = trained.get("image_template")
    if options.id is None and "id" in columns:
        options = dataclasses.replace(options, id=columns["id"])
    if IMAGE in options.columns or options.image_template:
        return options
    if "image" in columns:
        return dataclasses.replace(options, columns={IMAGE: columns["image"], **options.columns})
    if template and set(template_columns(template)) <= set(table.columns):
        return dataclasses.replace(options, image_template=template)
    return options


def _kept(table: Table, options: InputOptions, used: Collection[str | None]) -> dict[str, str]:
    """The columns that are passed on -> their names beside the answers."""
    missing = [column for column in options.keep if column not in table.columns] if options.keep != "all" else []
    if missing:
        raise TableError(f"{table.name} has no column {missing[0]!r} to keep; its columns are {table.columns}")
    kept = [column for column in table.columns if column not in used] if options.keep == "all" else options.keep
    return {column: f"input {column}" if column in ANSWERS else column for column in kept}


def _types(path: Path, kept: Mapping[str, str]) -> dict[str, Any]:
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    return {name: schema.field(column).type for column, name in kept.items()}


def _id_column(table: Table, options: InputOptions) -> str | None:
    if options.id is not None and options.id not in table.columns:
        raise TableError(f"{table.name} has no column {options.id!r}; its columns are {table.columns}")
    return options.id or (_ID if _ID in table.columns else None)


def _bind(
    table: Table, modalities: Sequence[str], options: InputOptions
) -> tuple[dict[str, str], ImageCells | None, list[str]]:
    """(text input -> column, how images are read, notes).

    Raises:
        ValueError: for an input or a column that does not exist, if nothing can be bound, or if several columns hold pictures.
    """
    columns = {name if name in modalities else input_name(name): column for name, column in options.columns.items()}
    unknown = [name for name in columns if name not in modalities]
    if unknown:
        raise ValueError(f"the run has no input {unknown[0]!r}; its inputs are {list(modalities)}")
    named = [*columns.values(), *(template_columns(options.image_template) if options.image_template else ())]
    missing = [column for column in named if column not in table.columns]
    if missing:
        raise TableError(f"{table.name} has no column {missing[0]!r}; its columns are {table.columns}")
    texts = {name: columns.get(name, column_name(name)) for name in modalities if name != IMAGE}
    reserved = [*texts.values(), options.id or _ID]
    images = _image_cells(table, options, columns.get(IMAGE), reserved) if IMAGE in modalities else None
    present = [name for name, column in texts.items() if column in table.columns]
    if not present and images is None:
        raise TableError(_nothing_bound(table, modalities))
    notes = []
    absent = [name for name in texts if name not in present]
    if images and images.column not in (None, IMAGE, columns.get(IMAGE)):
        notes.append(f"pictures are those of column {images.column!r}")
    if IMAGE in modalities and images is None:
        links = _links(table, reserved)
        hint = f" Column {links!r} holds URLs: {COLLECT}." if links else ""
        notes.append(f"no column holds pictures: predicted without them.{hint} Name one, if there is: --image=COLUMN")
    if absent:
        fields = ", ".join(map(repr, absent))
        notes.append(
            f"no column for {fields}: missing in all rows. Name one, if there is: --text='{column_name(absent[0])}=COLUMN'"
        )
    used = {*reserved, *named, images and images.column}
    unused = [column for column in table.columns if column not in used and column not in options.keep]
    if unused and options.keep != "all":
        notes.append(f"not used: {', '.join(map(repr, unused[:10]))}{', …' if len(unused) > 10 else ''}")
    return texts, images, notes


def _nothing_bound(table: Table, modalities: Sequence[str]) -> str:
    if not table.columns:
        return table.why_no_columns()
    return (
        f"{table.name} has none of the run's inputs {list(modalities)}; its columns are {table.columns}. Say which is what: "
        "--image=COLUMN, --text='FIELD=COLUMN'"
    )


def _image_cells(table: Table, options: InputOptions, bound: str | None, reserved: Sequence[str]) -> ImageCells | None:
    """How the pictures of a table are read; None if it has none."""
    root = Path(options.image_root) if options.image_root else table.folder
    if options.image_template:
        return ImageCells(None, root, options.image_template, options.first_image)
    column = bound or (IMAGE if IMAGE in table.columns and IMAGE not in reserved else None)
    if column is None:
        free = [column for column in table.columns if column not in reserved]
        sample = table.sample(free, _SAMPLE) if free else []
        columns = [column for column in free if _holds_pictures(ImageCells(column, root, first=True), sample)]
        if len(columns) > 1:
            raise TableError(f"{table.name} has several columns with pictures, {columns}: say which one, --image={columns[0]}")
        column = columns[0] if columns else None
    return column and ImageCells(column, root, first=options.first_image)


def _links(table: Table, reserved: Sequence[str]) -> str | None:
    """The first column of URLs, which may be those of pictures."""
    free = [column for column in table.columns if column not in reserved]
    sample = table.sample(free, _SAMPLE) if free else []
    return next((column for column in free if any(is_url(row.get(column)) for row in sample)), None)


def _holds_pictures(cells: ImageCells, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all cells of a column that are not empty name or hold pictures."""
    num_images = 0
    for row in rows:
        try:
            image = cells.read({cells.column: row.get(cells.column)})
        except ValueError:
            return False
        if isinstance(image, Path) and image.suffix.lower() not in IMAGE_SUFFIXES and not is_file(image):
            return False
        num_images += image is not None
    return num_images > 0


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Reads the rows of a table as inputs of a run. A blank line of JSON Lines is an error, so that lines keep their places."""

    table: Table
    modalities: Sequence[str]
    texts: Mapping[str, str]
    images: ImageCells | None
    id_column: str | None
    kept: Mapping[str, str]

    def __iter__(self) -> Iterator[Row]:
        line = 0
        for where, row in self.table.iter_rows(self._wanted()):
            number = int(where.rpartition(":")[2])
            if self.table.kind == "json lines":
                yield from (Row(self._default_id(blank), error="a blank line") for blank in range(line + 1, number))
            line = number
            yield self._row(row, self._default_id(number))

    def _wanted(self) -> list[str]:
        images = []
        if self.images:
            images = template_columns(self.images.template) if self.images.template else [self.images.column]
        return [*self.texts.values(), *images, *([self.id_column] if self.id_column else []), *self.kept]

    def _default_id(self, number: int) -> str:
        return f"{self.table.stem}:{number}"

    def _row(self, row: dict[str, Any] | BadRow, default_id: str) -> Row:
        if isinstance(row, BadRow):
            return Row(default_id, error=str(row), number=row.rows)
        cell = row.get(self.id_column or _ID)
        row_id = cell if isinstance(cell, str | int | float) and cell == cell and cell != "" else default_id
        kept = {name: row.get(column) for column, name in self.kept.items()}
        try:
            inputs = self._inputs(row)
        except (ValueError, OSError) as error:
            return Row(row_id, error=str(error), kept=kept)
        if inputs:
            return Row(row_id, inputs, kept=kept)
        error = f"none of the run's inputs {list(self.modalities)} is in it; it has {sorted(row)[:10]}"
        return Row(row_id, error=error, kept=kept)

    def _inputs(self, row: Mapping[str, Any]) -> dict[str, str | bytes]:
        inputs: dict[str, str | bytes] = {}
        for name, column in self.texts.items():
            texts = [text for text in texts_of(row.get(column), column) if text]
            if texts:
                inputs[name] = texts[0]  # as evaluation takes the first of several
        image = self.images.read(_Cells(row)) if self.images else None
        if image is not None:
            inputs[IMAGE] = image if isinstance(image, bytes) else str(image)
        return inputs


class _Cells(dict):
    """The cells of a row; a column that it lacks is empty."""

    def __missing__(self, column):
        return None
