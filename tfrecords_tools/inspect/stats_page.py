"""Statistics of a dataset as one HTML page: tables, plots and sample records. It refers to no other file and runs no script.

The page is written by the template stats_page.html; this module computes what the template shows.
"""

from __future__ import annotations

import base64
import io
import itertools
from pathlib import Path

from PIL import Image

from tfrecords_tools.dataset.atomic_file import write_text
from tfrecords_tools.dataset.folder import Dataset, Split
from tfrecords_tools.dataset.schema import Record, decode_example
from tfrecords_tools.dataset.shards import iter_records
from tfrecords_tools.inspect.stats import IMAGE_SIZES

_NUM_SAMPLES = 24
_THUMBNAIL = 160  # pixels
_MAX_LETTERS = 240


def write_page(folder: str | Path, stats: dict, path: str | Path) -> None:
    """Writes the page.

    Args:
        folder: the dataset folder.
        stats: the statistics that `compute_stats` made of it.
        path: the HTML file to write.

    Example:
        >>> write_page("data/products", compute_stats("data/products"), "products.html")
    """
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    dataset = Dataset.open(folder)
    page = environment.get_template("stats_page.html").render(
        name=dataset.info.name,
        num_labels=len(dataset.info.labels),
        multi_label=dataset.info.multi_label,
        source=str(dataset.info.provenance.get("source", "unknown")),
        overview=_overview(stats, dataset),
        splits=[_describe_split(dataset.split(name), content) for name, content in stats.items()],
    )
    write_text(path, page + "\n")


def _overview(stats: dict, dataset: Dataset) -> list[dict[str, str | int | float]]:
    """A row for each split; fractions are floats."""
    return [
        {
            "split": name,
            "examples": content["examples"],
            "shards": content["shards"],
            "bytes": sum(shard.num_bytes for shard in dataset.split(name).shards),
            **{f"without {modality}": share for modality, share in content["missing"].items()},
            "without label": content["unlabelled"],
        }
        for name, content in stats.items()
    ]


def _describe_split(split: Split, content: dict) -> dict:
    """What the template shows of a split."""
    words = {f"Frequent words of {field}": counts for field, counts in content["frequent_words"].items()}
    return {
        "name": split.name,
        "sources": [
            {"source": source, "examples": counts["examples"]}
            | {f"without {modality}": share for modality, share in counts["missing"].items()}
            for source, counts in content["missing_by_source"].items()
        ],
        "texts": [
            {
                "field": field + " (computed from the label)" * derived,
                "names its label": content["label_in_text"][field],
                "in another example too": content["repeated_texts"][field],
                "with other labels there": content["conflicting_texts"][field],
            }
            for field, derived in split.dataset.info.text_fields.items()
        ],
        "frequent": {"Frequent labels": content["frequent_labels"]} | words,
        "plots": _plots(content),
        "samples": _samples(split),
    }


def _plots(content: dict) -> list[dict[str, str]]:
    plots = [
        _plot("Examples per label", ("examples", "labels"), content["examples_per_label"], log_log=True),
        _plot("Labels per example", ("labels", "examples"), content["labels_per_example"]),
        *(_plot(f"Words per text: {field}", ("words", "texts"), spread) for field, spread in content["words"].items()),
        *(_plot(f"Image {name.replace('_', ' ')}", ("pixels", "images"), content[name]) for name in IMAGE_SIZES[:-1]),
        _plot("Bytes per image", ("bytes", "images"), content[IMAGE_SIZES[-1]]),
    ]
    return [plot for plot in plots if plot]


def _plot(caption: str, axis_labels: tuple[str, str], spread: dict, log_log: bool = False) -> dict[str, str] | None:
    """A histogram. No text of the data is drawn: fonts lack letters, and `$` would start a formula."""
    if not spread:
        return None
    bins = spread["histogram"]
    facts = ", ".join(f"{name} {value:,}" for name, value in spread.items() if name != "histogram")
    log_x = log_log or len({high - low for low, high, _ in bins}) > 1
    if log_x and bins[0][1] == 0:  # zero has no logarithm
        facts += f"; {bins[0][2]:,} with none"
        bins = bins[1:]
    svg = base64.b64encode(_draw(bins, axis_labels, log_x, log_log)).decode() if bins else ""
    return {"caption": caption, "facts": facts, "svg": svg}


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


def _samples(split: Split) -> list[dict]:
    """The first records of a split. Since records are ordered by a hash, they are a random sample, and always the same one."""
    records = itertools.chain.from_iterable(map(iter_records, split.files))
    return [_sample(decode_example(serialized), split.dataset) for serialized in itertools.islice(records, _NUM_SAMPLES)]


def _sample(record: Record, dataset: Dataset) -> dict:
    image, problem = _thumbnail(record.image) if record.image else (None, "no image")
    return {
        "id": _shortened(record.id),
        "labels": _shortened(", ".join(dataset.info.labels.names[index] for index in record.label_ids)),
        "texts": {field: _shortened(" | ".join(record.texts.get(field, ()))) for field in dataset.info.text_fields},
        "image": image,
        "problem": problem,
    }


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_LETTERS else text[: _MAX_LETTERS - 1] + "…"


def _thumbnail(jpeg: bytes) -> tuple[dict | None, str]:
    """(the small picture, ""), or (None, what is wrong with it)."""
    file = io.BytesIO()
    try:
        image = Image.open(io.BytesIO(jpeg))
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        image.save(file, "JPEG", quality=80)
    except OSError as error:
        return None, f"broken image: {error}"
    return {"width": image.width, "height": image.height, "jpeg": base64.b64encode(file.getvalue()).decode()}, ""
