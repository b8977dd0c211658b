"""The figures of a run's page, drawn from the sections' content alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np

from mm_keras.report.figures import BAD, COLOURS, GOOD, NEUTRAL, Drawing, draw, heat, percent_axis, short

_MOST_LINES = 6  # of single inputs in the figure on reliability


def draw_inputs(content: dict) -> list[Drawing]:
    """What each set of inputs reaches, and what is lost as inputs go missing."""
    measure = content["measure"]
    rows = content["subsets"][::-1]

    def plot_sets(axes) -> None:
        for place, row in enumerate(rows):
            result = row["measures"][measure]
            colour = COLOURS[1] if row is rows[0] else NEUTRAL if not row["shown"] else COLOURS[0]
            axes.plot([result["low"], result["high"]], [place, place], color=colour, alpha=0.5)
            axes.plot(result["value"], place, "o", color=colour, markersize=5)
        axes.set_yticks(range(len(rows)), [short(row["inputs"], 40) for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(0, 1)
        axes.set_xlabel(measure)
        axes.grid(axis="x")

    def plot_missing(axes) -> None:
        for number, curve in enumerate(content["missing_curves"]):
            style = "--" if curve["input"] == "every input" else "-"
            points = curve["points"]
            colour = COLOURS[number % len(COLOURS)] if style == "-" else NEUTRAL
            axes.plot(
                [p["share"] for p in points], [p["value"] for p in points], style, color=colour, label=short(curve["input"])
            )
        axes.set(xlabel="share of examples from which it is hidden", ylabel=measure, ylim=(0, 1), xlim=(0, 1))
        percent_axis(axes.xaxis)
        axes.grid()
        axes.legend()

    best = max(rows, key=lambda row: row["measures"][measure]["value"])
    drawings = [
        draw(
            "inputs",
            f"{measure} by what is shown",
            f"{measure} with each set of inputs; the best is {best['inputs']} with {best['measures'][measure]['value']:.3f}.",
            plot_sets,
            (5.6, 0.9 + 0.27 * len(rows)),
            "The same model, with its other inputs hidden; the lines are intervals of 95 %.",
        )
    ]
    ends = ", ".join(f"{curve['input']} {curve['points'][-1]['value']:.2f}" for curve in content["missing_curves"])
    note = (
        "Hidden from randomly drawn examples. “every input”: each one independently."
        if len(content["missing_curves"]) > 1
        else ""
    )
    drawings.append(
        draw(
            "missing",
            f"{measure} as inputs go missing",
            f"{measure} falls as inputs are hidden; at the end: {ends}.",
            plot_missing,
            note=note,
        )
    )
    return drawings


def draw_classes(content: dict) -> list[Drawing]:
    """Confusions, labels that occur together, and thresholds."""
    drawings = []
    labels, counts = content["confusion"]["labels"], np.array(content["confusion"]["counts"], float)
    if len(labels) > 1:
        size = _side(len(labels), 2.6)
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))

        def plot_confusion(axes) -> None:
            heat(axes, shares.tolist(), labels)
            if len(labels) <= 15:
                for (row, column), count in np.ndenumerate(counts):
                    if count:
                        axes.text(column, row, f"{int(count)}", ha="center", va="center", fontsize=7.5)
            axes.set(xlabel="predicted", ylabel="given")

        drawings.append(
            draw(
                "confusion",
                "Confusions",
                f"A matrix of {len(labels)} labels, rows given, columns predicted; {int(np.trace(counts)):,} on the diagonal.",
                plot_confusion,
                (size, size),
                f"The {len(labels)} labels with the most confusions; those that are confused stand together.",
            )
        )
    if "co_occurrence" in content and len(content["co_occurrence"]["labels"]) > 1:
        co_occurrence = content["co_occurrence"]
        size = _side(len(co_occurrence["labels"]), 2.4)
        drawings.append(
            draw(
                "co_occurrence",
                "Labels that occur together",
                "A matrix: the share of the examples with the row's label that have the column's label, too.",
                lambda axes: heat(axes, co_occurrence["shares"], co_occurrence["labels"]),
                (size, size),
                "The share of the examples with the label of a row that have the label of a column, too.",
            )
        )
    if content.get("thresholds"):
        drawings.append(_draw_thresholds(content["thresholds"]))
    return drawings


def _side(num_labels: int, margin: float) -> float:
    """The side of a matrix in inches."""
    return margin + (0.28 if num_labels <= 12 else 0.2) * num_labels


def _draw_thresholds(curves: list[dict]) -> Drawing:
    def plot(axes) -> None:
        for number, curve in enumerate(curves):
            colour, points = COLOURS[number % len(COLOURS)], curve["points"]
            axes.plot(
                [p["threshold"] for p in points], [p["f1"] for p in points], color=colour, label=short(curve["label"], 18)
            )
            nearest = min(points, key=lambda point: abs(point["threshold"] - curve["chosen"]))
            axes.plot(curve["chosen"], nearest["f1"], "o", color=colour, markersize=5)
        axes.set(xlabel="threshold", ylabel="F1", xlim=(0, 1), ylim=(0, 1))
        axes.grid()
        axes.legend(fontsize=7, ncols=2)

    alt = "F1 against the threshold of each of the most frequent labels: " + ", ".join(curve["label"] for curve in curves)
    return draw("thresholds", "F1 by threshold", alt, plot, note="Dots are the thresholds that are used.")


def draw_trust(content: dict) -> list[Drawing]:
    """Reliability, risk and coverage, and histograms."""
    drawings = []
    if "patterns" in content:
        whole = content["patterns"][-1]
        patterns = [row for row in content["patterns"] if row["single"] and row is not whole][:_MOST_LINES]

        def plot_reliability(axes) -> None:
            axes.plot([0, 1], [0, 1], "--", color=NEUTRAL, linewidth=1)
            for number, row in enumerate([*patterns, whole]):
                claimed, true = ([point[name] for point in row["curve"]] for name in ("claimed", "true"))
                label = f"{short(row['inputs'], 24)} ({row['ece']:.3f})"
                emphasis = {"color": COLOURS[1], "linewidth": 1.8, "markersize": 4} if row is whole else {}
                plain = {"color": COLOURS[(0, 2, 4, 5, 6, 7)[number % 6]], "linewidth": 0.9, "markersize": 2.5, "alpha": 0.6}
                axes.plot(claimed, true, "o-", label=label, **(emphasis or plain))
            axes.set(xlabel="claimed probability", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
            axes.grid()
            axes.legend(fontsize=7, title="inputs (ECE)", title_fontsize=7)

        alt = "Share that came true against claimed probability; calibration errors: " + ", ".join(
            f"{row['inputs']} {row['ece']:.3f}" for row in [*patterns, whole]
        )
        note = "Each point stands for at least 20 answers, if there are so many."
        drawings.append(draw("reliability", "Do probabilities come true?", alt, plot_reliability, (4.6, 3.6), note))
    if content.get("risk_coverage"):
        points = content["risk_coverage"]

        def plot_risk(axes) -> None:
            axes.plot([p["coverage"] for p in points], [p["risk"] for p in points], color=COLOURS[0])
            axes.set(xlabel="share of examples that are answered, the surest first", ylabel="of these wrong", xlim=(0, 1))
            axes.set_ylim(bottom=0)
            percent_axis(axes.xaxis)
            percent_axis(axes.yaxis)
            axes.grid()

        half = content["coverage_table"][0]["risk"]
        alt = f"If all are answered, {points[-1]['risk']:.1%} are wrong; of the surest half {half:.1%}."
        drawings.append(draw("risk_coverage", "Errors if only the surest are answered", alt, plot_risk, (4.6, 3.2)))
    names = ("right", "wrong") if "patterns" in content else ("examples", None)
    drawings.append(_histogram("confidence", "How sure the answers are", content["confidence"], "probability", names))
    if content["novelty"]:
        novelty = content["novelty"]
        drawings.append(
            _histogram(
                "novelty",
                "Distance to the nearest training examples",
                novelty["histogram"],
                "cosine distance to the fifth nearest",
                ("this split", "training, to each other"),
                "as shares of each",
                limit=novelty["limit"],
            )
        )
    return drawings


def _histogram(
    name: str, title: str, bins: dict, label: str, names: tuple[str, str | None], note: str = "", limit: float | None = None
) -> Drawing:
    edges = np.array(bins["edges"])

    def plot(axes) -> None:
        counts = [np.array(bins["yes"], float), np.array(bins["no"], float)]
        if note:
            counts = [group / max(1, group.sum()) for group in counts]
        axes.bar(
            edges[:-1],
            counts[0],
            np.diff(edges),
            align="edge",
            color=GOOD if names[1] == "wrong" else COLOURS[0],
            alpha=0.65,
            label=names[0],
        )
        if names[1]:
            axes.bar(
                edges[:-1],
                counts[1],
                np.diff(edges),
                align="edge",
                color=BAD if names[1] == "wrong" else COLOURS[1],
                alpha=0.6,
                label=names[1],
            )
            axes.legend(fontsize=8)
        if limit is not None:
            axes.axvline(limit, color=NEUTRAL, linestyle="--", linewidth=1)
        axes.set(xlabel=label, ylabel=note or "examples")
        axes.grid(axis="y")

    alt = f"A histogram of the {label}: {sum(bins['yes']):,} {names[0]}" + (
        f", {sum(bins['no']):,} {names[1]}." if names[1] else "."
    )
    return draw(name, title, alt, plot, (4.6, 2.8))


def draw_maps(content: dict, picture: Callable[[str, int], bytes | None]) -> list[Drawing]:
    """A scatter of points for each space; `picture` gives the small JPEG of an example by its split and row."""
    colours = {label: COLOURS[number] for number, label in enumerate(content["coloured"])}
    drawings = []
    for number, layout in enumerate(content["maps"]):
        name = f"map_{number}"

        def plot(axes, layout=layout) -> None:
            for label in [*content["coloured"], None]:
                points = [p for p in layout["points"] if (p["label"] if p["label"] in colours else None) == label]
                colour = colours.get(label, NEUTRAL)
                axes.scatter(
                    [p["x"] for p in points],
                    [p["y"] for p in points],
                    s=9 if len(layout["points"]) > 200 else 18,
                    color=colour,
                    alpha=0.75,
                    linewidths=0,
                )
            for shown in layout["pictures"]:
                _place_picture(axes, layout["points"][shown["point"]], picture(shown["split"], shown["row"]))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)

        title = f"{layout['space']}, {layout['method']}"
        alt = f"A map of {len(layout['points']):,} examples by their embeddings of {layout['space']}, coloured by label."
        drawings.append(draw(name, title, alt, plot, (4.4, 3.6) if not layout["pictures"] else (6.4, 5.2)))
    if content["similar"]:
        labels = content["similar"]["labels"]
        size = _side(len(labels), 2.4)
        alt = "A matrix of the cosines between the mean text embeddings of labels."
        note = "Cosines of the mean text embeddings of two labels, less the mean of all; only those above 0 are shaded."
        drawings.append(
            draw(
                "similar",
                "Labels with similar texts",
                alt,
                lambda axes: heat(axes, content["similar"]["cosines"], labels),
                (size, size),
                note,
            )
        )
    return drawings


def _place_picture(axes, point: dict, jpeg: bytes | None) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from PIL import Image

    if jpeg is None:
        return
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB").resize((40, 40)))
    box = OffsetImage(pixels, zoom=0.8)
    axes.add_artist(
        AnnotationBbox(box, (point["x"], point["y"]), xybox=(18, 18), boxcoords="offset points", pad=0.1, frameon=True)
    )


def draw_training(content: dict) -> list[Drawing]:
    """A figure for each measure that training followed, and for rates."""
    drawings = []
    for curve in content["curves"]:

        def plot(axes, curve=curve) -> None:
            for part, colour, label in (("train", COLOURS[0], "training batches"), ("val", COLOURS[1], "validation")):
                points = curve.get(part, [])
                if points:
                    axes.plot(
                        [p["epoch"] for p in points],
                        [p["value"] for p in points],
                        "o-",
                        color=colour,
                        markersize=3,
                        label=label,
                    )
            axes.set(xlabel="epoch", ylabel=curve["name"].replace("_", " "))
            axes.grid()
            if curve["is_measure"]:
                axes.legend(fontsize=8)

        ends = [f"{part} {curve[part][-1]['value']:.4g}" for part in ("train", "val") if part in curve]
        title = curve["name"].replace("_", " ")
        drawings.append(
            draw(f"curve_{curve['name']}", title, f"{title} by epoch; at the end: {', '.join(ends)}.", plot, (3.6, 2.4))
        )
    return drawings


def data_uri(kind: str, content: bytes) -> str:
    """The content of a file as a data URI, which a page can hold."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
