"""The figures of a comparison, drawn from its content alone."""

from __future__ import annotations

from collections.abc import Mapping

from mm_keras.report.figures import COLOURS, NEUTRAL, Drawing, draw, short


def draw_comparison(content: Mapping) -> list[Drawing]:
    """Scores with intervals; box plots over seeds, where there are several; size against score, where it is known."""
    measure, runs = content["measure"], content["runs"][::-1]

    def plot_runs(axes) -> None:
        for place, row in enumerate(runs):
            result = row["measures"][measure]
            axes.plot([result["low"], result["high"]], [place, place], color=COLOURS[0], alpha=0.5)
            axes.plot(result["value"], place, "o", color=COLOURS[0], markersize=5)
        axes.set_yticks(range(len(runs)), [short(row["run"], 40) for row in runs])
        axes.set_ylim(-0.6, len(runs) - 0.4)
        axes.set_xlabel(measure)
        axes.grid(axis="x")

    alt = f"{measure} of each run: " + ", ".join(f"{row['run']} {row['measures'][measure]['value']:.3f}" for row in runs)
    note = "Intervals of 95 %. They overlap more than the differences do, since all runs answer the same examples."
    drawings = [draw("runs", f"{measure} of each run", alt, plot_runs, (5.6, 0.9 + 0.3 * len(runs)), note)]
    if any(len(row["values"]) > 1 for row in content["settings"]):
        drawings.append(_draw_seeds(content["settings"][::-1], measure))
    sized = [row for row in runs if row["megabytes"]]
    if len(sized) > 1:
        drawings.append(_draw_sizes(sized, measure))
    return drawings


def _draw_seeds(settings: list, measure: str) -> Drawing:
    def plot(axes) -> None:
        places = range(len(settings))
        boxes = axes.boxplot([row["values"] for row in settings], positions=places, orientation="horizontal", showfliers=False)
        for part in ("boxes", "whiskers", "caps"):
            for line in boxes[part]:
                line.set_color(NEUTRAL)
        for place, row in zip(places, settings, strict=True):
            axes.plot(row["values"], [place] * len(row["values"]), "o", color=COLOURS[0], alpha=0.6, markersize=4)
        axes.set_yticks(places, [short(row["setting"], 40) for row in settings])
        axes.set_xlabel(measure)
        axes.grid(axis="x")

    alt = f"{measure} over seeds: " + ", ".join(f"{row['setting']} {row['mean']:.3f}" for row in settings)
    note = "A dot for each run; runs whose configurations differ in the seed alone are one setting."
    return draw("seeds", "Over seeds", alt, plot, (5.6, 0.9 + 0.34 * len(settings)), note)


def _draw_sizes(runs: list, measure: str) -> Drawing:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    def plot(axes) -> None:
        for number, row in enumerate(runs[::-1]):
            result = row["measures"][measure]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot([row["megabytes"]] * 2, [result["low"], result["high"]], color=colour, alpha=0.4)
            axes.plot(row["megabytes"], result["value"], "o", color=colour, label=short(row["run"], 30))
        sizes = [row["megabytes"] for row in runs]
        if max(sizes) > 10 * min(sizes):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.4g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="megabytes of weights", ylabel=measure)
        axes.grid()
        axes.legend(fontsize=7)

    alt = f"{measure} against megabytes: " + ", ".join(f"{row['run']} {row['megabytes']:.1f} MB" for row in runs)
    return draw("sizes", "Size against score", alt, plot)
