"""Figures as SVG that follow the page's colours, light or dark, and whose texts stay text."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure

COLOURS = ("#3b7dd8", "#d9762b", "#2f9e6e", "#c9485b", "#8a63d2", "#2a93a8", "#b5892f", "#c0569d", "#6b7f3a", "#7d6b5d")
GOOD, BAD, NEUTRAL = COLOURS[2], COLOURS[3], "#8b93a1"
_INK = "#010203"  # becomes the page's text colour
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,  # a `$` in a label is a dollar
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}


class Drawing(NamedTuple):
    """A figure of the page.

    Attributes:
        name: the name of its file, without suffix.
        title: what it shows, in a few words.
        alt: what one sees on it, in a sentence, for readers who cannot see it.
        note: what else there is to say of it.
        svg: the SVG element.
    """

    name: str
    title: str
    alt: str
    note: str
    svg: str


def draw(
    name: str, title: str, alt: str, plot: Callable[[Axes], None], size: tuple[float, float] = (5.2, 3.2), note: str = ""
) -> Drawing:
    """Draws a figure.

    Args:
        name, title, alt, note: see `Drawing`.
        plot: draws on the axes that it gets.
        size: in inches of 72 pixels.
    """
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(size, layout="constrained")
        plot(figure.add_subplot())
        return Drawing(name, title, alt, note, to_svg(figure, name))


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Sets the style of all figures, and silences warnings of letters that the font lacks: the reader's browser has them."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def to_svg(figure: MplFigure, name: str) -> str:
    """The figure as an SVG element whose ids begin with its name, so that several fit on one page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace(_INK, "currentColor")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would style the page
    svg = re.sub(r'\b(?:d|x|y|transform|points)="[^"]*"', _in_hundredths, svg)
    return re.sub(r"\n\s*", "\n", svg).strip()


def _in_hundredths(attribute: re.Match) -> str:
    """Coordinates in hundredths of a pixel, which is fine enough."""
    return re.sub(r"(?<=\d\.\d\d)\d+", "", attribute.group())


def short(label: str, most: int = 28) -> str:
    """A label on one line of at most so many characters, so that it fits beside an axis."""
    line = " ".join(label.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def percent_axis(axis) -> None:
    """Shows fractions as percents."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1))


def heat(axes: Axes, values: list[list[float]], labels: list[str]) -> None:
    """Draws a matrix of values within 0–1, as squares of one colour whose opacity is the value."""
    import numpy as np
    from matplotlib.colors import to_rgba

    array = np.clip(np.array(values, float), 0, 1)
    colours = np.zeros((*array.shape, 4))
    colours[...] = to_rgba(COLOURS[0])
    colours[..., 3] = array
    axes.imshow(colours, interpolation="nearest")
    names = [short(label, 22) for label in labels]
    size = 8 if len(names) <= 12 else 6.5
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
