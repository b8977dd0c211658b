"""Writes a report: report.html and, beside it, all that it shows as report.json, tables as CSV, and figures as SVG."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mm_keras
import tfrecords_tools.inspect
from mm_keras.report.figures import COLOURS, Drawing
from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.checksums import forget

_TEMPLATES = Path(__file__).parent / "templates"
_SHARED = Path(tfrecords_tools.inspect.__file__).parent
_DIGITS = 6


def render(template: str, **content: object) -> str:
    """The HTML of a page; all values are escaped.

    Args:
        template: the name of a template, "report_page.html".
        content: the variables that the template uses.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_TEMPLATES, _SHARED]), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["inline"] = lambda drawing: Markup(_inline(drawing))  # its texts are escaped by matplotlib
    script = (_TEMPLATES / "sort.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shared = {"version": mm_keras.__version__, "colours": COLOURS, "script": Markup(script), "script_hash": digest}
    return environment.get_template(template).render(**shared, **content) + "\n"


def data_folder(path: Path, is_own: bool) -> Path:
    """Where the data of a page go: beside it in a folder that is the report's own, or else into <stem>_data/ beside it."""
    return path.parent if is_own else path.parent / f"{path.stem}_data"


def write_report(
    path: Path, data: Path, page: str, content: Mapping, tables: Mapping[str, Sequence[Mapping]], drawings: Sequence[Drawing]
) -> None:
    """Writes the page and what it is made of. Tables and figures that an earlier page at this place had are deleted.

    Args:
        path: the page's path; folders are made.
        data: the folder of its data, by `data_folder`.
        page: the HTML.
        content: what <stem>.json holds, which also lists the "files".
        tables: name -> rows, for tables/<name>.csv.
        drawings: the figures, for figures/<name>.svg.
    """
    json_path = data / f"{path.stem}.json"
    for name in _written_before(json_path):
        forget(data / name)
    files = {f"tables/{name}.csv": _csv(rows) for name, rows in tables.items()}
    files |= {f"figures/{drawing.name}.svg": drawing.svg + "\n" for drawing in drawings}
    for name, text in files.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(data / name, text)
    data.mkdir(parents=True, exist_ok=True)
    json_content = {**content, "files": list(files)}
    write_text(json_path, json.dumps(json_content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    write_text(path, page)


def _written_before(json_path: Path) -> list[str]:
    """The tables and figures that the JSON of an earlier page lists."""
    try:
        files = json.loads(json_path.read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in files if isinstance(name, str) and re.fullmatch(r"(tables|figures)/[\w-]+\.(csv|svg)", name)]


def as_json(value: Any) -> Any:
    """A value as JSON takes it: of plain types, floats rounded to six digits, and None for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [as_json(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None
    return value


def _csv(rows: Sequence[Mapping]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _cell(value: object) -> object:
    """A cell; a text that a spreadsheet would take for a formula gets a quote before it."""
    if isinstance(value, list | tuple):
        value = "|".join(map(str, value))
    if isinstance(value, float | np.floating):
        return f"{value:.{_DIGITS}g}"
    return f"'{value}" if isinstance(value, str) and re.match(r"[=+\-@\t\r]", value) else value


def _inline(drawing: Drawing) -> str:
    """The figure as a part of an HTML page."""
    from markupsafe import escape

    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawing.svg).replace("xlink:href", "href")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(drawing.alt)}" ', 1)
