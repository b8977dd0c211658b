"""Statistics of a dataset as one HTML page: tables, plots and sample records. It refers to no other file and runs no script."""

from __future__ import annotations

import base64
import html
import io
import itertools
from pathlib import Path

from PIL import Image

from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.dataset.schema import Record, decode_example
from tfrecords_tools.dataset.shards import iter_records
from tfrecords_tools.inspect.stats import IMAGE_SIZES

_NUM_SAMPLES = 24
_THUMBNAIL = 160
_MAX_LETTERS = 240
_MISSING = '<span class="none">missing</span>'

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # whatever a record says, nothing is loaded or run
_STYLE = """
:root { color-scheme: light; font: 15px/1.45 system-ui, sans-serif; color: #222 }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; margin: 0 2rem 1.5rem 0 }
caption, figcaption { text-align: left; font-weight: 600; padding-bottom: .3rem; white-space: nowrap }
small { font-weight: 400; color: #666 }
th, td { text-align: left; padding: .15rem .7rem; border-bottom: 1px solid #e5e5e5; overflow-wrap: anywhere; max-width: 24rem }
th:not(:first-child), .number { text-align: right }
.number { font-variant-numeric: tabular-nums; white-space: nowrap }
.bar { background: linear-gradient(#cfe3f5, #cfe3f5) no-repeat; min-width: 9rem }
.row { display: flex; flex-wrap: wrap; align-items: flex-start }
figure { margin: 0 1.5rem 1.5rem 0 }
.sample { width: 11rem; margin: 0 .6rem .6rem 0; padding: .4rem; border: 1px solid #ddd; border-radius: 4px;
  font-size: .85rem; overflow-wrap: anywhere }
.sample p { margin: .4rem 0 0 }
.none { color: #666; font-style: italic }
"""


def write_page(folder: str | Path, stats: dict, path: str | Path) -> None:
    """Writes the page.

    Args:
        folder: a dataset folder.
        stats: its statistics, of `compute_stats`.
        path: the HTML file to make.
    """
    info = DatasetInfo.load(folder)
    kind = "several labels an example" if info.multi_label else "one label an example"
    title = html.escape(info.name)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1><p>{len(info.labels):,} labels, {kind}. ",
        f"Packed from the source <code>{html.escape(str(info.provenance.get('source', 'unknown')))}</code>.</p>",
        _overview(stats, info),
    ]
    for split, content in stats.items():
        parts += [f"<h2>{html.escape(split)}</h2>", _tables(content, info), _plots(content)]
        parts += ["<h3>Examples</h3>", '<div class="row">', *_samples(Path(folder), info, split), "</div>"]
    Path(path).write_text("\n".join([*parts, "</body></html>\n"]), "utf-8")


def _overview(stats: dict, info: DatasetInfo) -> str:
    rows = [
        {
            "split": split,
            "examples": content["examples"],
            "shards": content["shards"],
            "bytes": sum(shard.num_bytes for shard in info.shards(split)),
            **{f"without {name}": share for name, share in content["missing"].items()},
            "without label": content["unlabelled"],
        }
        for split, content in stats.items()
    ]
    return _table("Splits", rows)


def _tables(content: dict, info: DatasetInfo) -> str:
    sources = [
        {"source": source, "examples": found["examples"]}
        | {f"without {name}": share for name, share in found["missing"].items()}
        for source, found in content["missing_by_source"].items()
    ]
    texts = [
        {
            "field": field + " (computed from the label)" * derived,
            "names its label": content["label_in_text"][field],
            "in another example too": content["repeated_texts"][field],
            "with other labels there": content["conflicting_texts"][field],
        }
        for field, derived in info.text_fields.items()
    ]
    tables = [_table("By source", sources), _table("Texts: of the examples that have one", texts)]
    words = {f"Frequent words of {field}": found for field, found in content["frequent_words"].items()}
    bars = [_bars(caption, found) for caption, found in ({"Frequent labels": content["frequent_labels"]} | words).items()]
    return "\n".join(['<div class="row">', *tables, "</div>", '<div class="row">', *bars, "</div>"])


def _table(caption: str, rows: list[dict[str, str | int | float]]) -> str:
    """A table with the rows' keys as its head; floats are shares. Without rows there is none."""
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>\n" for row in rows)
    return f"<table><caption>{html.escape(caption)}</caption>\n<tr>{head}</tr>\n{body}</table>"


def _cell(value: str | int | float) -> str:
    if isinstance(value, str):
        return f"<td>{html.escape(value)}</td>"
    return f'<td class="number">{f"{value:.1%}" if isinstance(value, float) else f"{value:,}"}</td>'


def _bars(caption: str, counts: dict[str, int]) -> str:
    """Names with their counts, the largest first, and bars behind the names."""
    if not counts:
        return ""
    most = max(counts.values())
    body = "".join(
        f'<tr><td class="bar" style="background-size:{count / most:.0%} 100%">{html.escape(name)}</td>{_cell(count)}</tr>\n'
        for name, count in counts.items()
    )
    return f"<table><caption>{html.escape(caption)}</caption>\n{body}</table>"


def _plots(content: dict) -> str:
    pixels = [_plot(f"Image {name.replace('_', ' ')}", ("pixels", "images"), content[name]) for name in IMAGE_SIZES[:-1]]
    plots = [
        _plot("Examples per label", ("examples", "labels"), content["examples_per_label"], log_log=True),
        _plot("Labels per example", ("labels", "examples"), content["labels_per_example"]),
        *(_plot(f"Words per text: {field}", ("words", "texts"), spread) for field, spread in content["words"].items()),
        *pixels,
        _plot("Bytes per image", ("bytes", "images"), content[IMAGE_SIZES[-1]]),
    ]
    return "\n".join(['<div class="row">', *plots, "</div>"])


def _plot(caption: str, axis_labels: tuple[str, str], spread: dict, log_log: bool = False) -> str:
    """A histogram. No text of the data is drawn: fonts lack letters, and `$` would start a formula."""
    if not spread:
        return ""
    bins = spread["histogram"]
    facts = ", ".join(f"{name} {value:,}" for name, value in spread.items() if name != "histogram")
    log_x = log_log or len({high - low for low, high, _ in bins}) > 1
    if log_x and bins[0][1] == 0:  # zero has no logarithm
        facts += f"; {bins[0][2]:,} with none"
        bins = bins[1:]
    image = base64.b64encode(_draw(bins, axis_labels, log_x, log_log)).decode() if bins else ""
    return (
        f"<figure><figcaption>{html.escape(caption)}<br><small>{facts}</small></figcaption>"
        + f'<img alt="" src="data:image/svg+xml;base64,{image}">' * bool(bins)
        + "</figure>"
    )


def _draw(bins: list[list[int]], axis_labels: tuple[str, str], log_x: bool, log_y: bool) -> bytes:
    """The SVG of a histogram. Equal data give equal bytes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

    figure = Figure(figsize=(3.6, 2.2), layout="constrained")
    axes = figure.add_subplot()
    lefts, widths = [low - 0.5 for low, _, _ in bins], [high - low + 1 for low, high, _ in bins]
    axes.bar(lefts, [count for _, _, count in bins], widths, align="edge", color="#3b76af", edgecolor="white", linewidth=0.4)
    axes.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    if log_y:
        axes.set_ylim(bottom=0.7)
    for axis, is_log in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
        low, high = axis.get_view_interval()
        subs = (1,) if high > 300 * low else (1, 2, 5)
        axis.set_major_locator(LogLocator(subs=subs) if is_log else MaxNLocator(5, integer=True, min_n_ticks=1))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(EngFormatter(sep=""))
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "stats"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _samples(folder: Path, info: DatasetInfo, split: str) -> list[str]:
    """The first records of a split: records lie in the order of a hash, so that these are drawn at random, and always alike."""
    shards = [folder / shard.file for shard in info.shards(split)]
    records = itertools.chain.from_iterable(map(iter_records, shards))
    return [_sample(decode_example(serialized), info) for serialized in itertools.islice(records, _NUM_SAMPLES)]


def _sample(record: Record, info: DatasetInfo) -> str:
    labels = ", ".join(info.labels.names[index] for index in record.label_ids)
    texts = {field: " | ".join(record.texts.get(field, ())) for field in info.text_fields}
    lines = [
        f"<b>{_shortened(labels)}</b>" if labels else '<span class="none">no label</span>',
        *(f"<small>{html.escape(name)}</small> {_shortened(text) or _MISSING}" for name, text in texts.items()),
        f"<small>{_shortened(record.id)}</small>",
    ]
    image = _thumbnail(record.image) if record.image else '<p class="none">no image</p>'
    return f'<div class="sample">{image}\n' + "".join(f"<p>{line}</p>\n" for line in lines) + "</div>"


def _shortened(text: str) -> str:
    """HTML of at most so many letters, in their own writing direction."""
    text = text if len(text) <= _MAX_LETTERS else text[: _MAX_LETTERS - 1] + "…"
    return f"<bdi>{html.escape(text)}</bdi>" if text else ""


def _thumbnail(jpeg: bytes) -> str:
    file = io.BytesIO()
    try:
        image = Image.open(io.BytesIO(jpeg))
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        image.save(file, "JPEG", quality=80)
    except OSError as error:
        return f'<p class="none">{html.escape(f"broken image: {error}")}</p>'
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="" width="{image.width}" height="{image.height}" src="data:image/jpeg;base64,{data}">'
