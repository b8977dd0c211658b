"""The report of a relevance filter: what it keeps of which class, with examples, and whether it finds what is known wrong."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from mm_keras.runs.class_embeddings import read_texts
from mm_keras.runs.evaluate import markdown_table
from mm_keras.studies.relevance_pairs import Caption
from tfrecords_tools.dataset.atomic_file import atomic_file, write_text

_LEVELS = np.linspace(0, 1, 6)  # of the probability
_EXAMPLES = 3  # a level
_SHOWN = 100  # characters of a caption
_CLASSES = 20  # rows of the table of classes


def write_report(
    output: Path,
    captions: Sequence[Caption],
    own: np.ndarray,
    weights: np.ndarray,
    least: float,
    corrupted: set[str] | None,
    texts: str | Path | None,
) -> dict:
    """Writes report.md and histograms.png, prints the numbers, and returns them.

    Args:
        output: the folder.
        captions: all N captions that were scored.
        own: the probability of each caption's own class, float [N].
        weights: the coefficients, float [N], 0 where a caption was dropped.
        least: the probability below which captions are dropped.
        corrupted: the ids of captions that are known to be of another class, if any are known.
        texts: a file with texts of the classes, for the baseline.
    """
    kept = weights > 0
    similarity = similarity_to_class(captions, read_texts(Path(texts))) if texts else None
    summary = {"captions": len(captions), "kept": int(kept.sum()), "least": least}
    if similarity is not None:
        from scipy.stats import spearmanr

        summary["rank_correlation_with_text_similarity"] = float(spearmanr(own, similarity).statistic)
    if corrupted is not None:
        wrong = np.array([caption.id in corrupted for caption in captions])
        summary["known_wrong"] = {"captions": int(wrong.sum()), **found(~kept, wrong), "auc": auc(own, wrong)}
        if similarity is not None:
            summary["known_wrong"]["auc_of_text_similarity"] = auc(similarity, wrong)
    lines = [
        f"{len(captions):,} captions, {kept.sum():,} kept ({kept.mean():.1%}).",
        *_told(summary),
        "",
        "## Kept by class",
        "",
        _table_of_classes(captions, kept),
        "",
        "## Examples by the probability of their own class",
        "",
        *_examples(captions, own, kept),
        "",
        "![Probabilities, and coefficients of those kept](histograms.png)",
    ]
    write_text(output / "report.md", "\n".join(lines) + "\n")
    _draw(output / "histograms.png", own, weights[kept], least)
    logging.info("\n".join(lines[: 1 + len(_told(summary))]))
    logging.info(f"{output / 'report.md'}")
    return summary


def similarity_to_class(captions: Sequence[Caption], texts: dict[str, str]) -> np.ndarray:
    """The baseline: the cosine of each caption's words to those of its class's text, weighted by TF-IDF; float [N]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    labels = sorted({caption.label for caption in captions})
    vectors = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    vectors.fit([*(caption.text for caption in captions), *(texts.get(label, "") for label in labels)])
    of_classes = vectors.transform([texts.get(label, "") for label in labels])
    rows = np.array([labels.index(caption.label) for caption in captions])
    return np.asarray(vectors.transform([caption.text for caption in captions]).multiply(of_classes[rows]).sum(axis=1)).ravel()


def found(dropped: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of dropping, bool [N], at finding what is wrong, bool [N]; 0 for an empty denominator."""
    hits = (dropped & wrong).sum()
    precision, recall = hits / max(dropped.sum(), 1), hits / max(wrong.sum(), 1)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1)}


def auc(scores: np.ndarray, wrong: np.ndarray) -> float | None:
    """The probability that a right caption scores above a wrong one; None if there are not both."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(~wrong, scores)) if wrong.any() and not wrong.all() else None


def _told(summary: dict) -> list[str]:
    lines = []
    if "rank_correlation_with_text_similarity" in summary:
        value = summary["rank_correlation_with_text_similarity"]
        lines.append(f"Rank correlation of the scores with a plain text similarity: {value:.3f}.")
    if facts := summary.get("known_wrong"):
        lines.append(
            f"Of {facts['captions']:,} captions known to be wrong, the filter drops {facts['recall']:.1%}; of those that it "
            f"drops, {facts['precision']:.1%} are wrong (F1 {facts['f1']:.3f})."
        )
        if facts["auc"] is not None:
            baseline = (
                f", by text similarity {facts['auc_of_text_similarity']:.3f}" if "auc_of_text_similarity" in facts else ""
            )
            lines.append(f"A right caption scores above a wrong one with probability {facts['auc']:.3f}{baseline}.")
    return lines


def _table_of_classes(captions: Sequence[Caption], kept: np.ndarray) -> str:
    labels = np.array([caption.label for caption in captions])
    rows = [(name, int((labels == name).sum()), int(kept[labels == name].sum())) for name in sorted(set(labels))]
    rows.sort(key=lambda row: row[2] / row[1])
    more = [[f"… and {len(rows) - _CLASSES:,} more", "", ""]] if len(rows) > _CLASSES else []
    cells = [[name, f"{number:,}", f"{part:,} ({part / number:.0%})"] for name, number, part in rows[:_CLASSES]]
    return markdown_table([["class, least kept first", "captions", "kept"], *cells, *more])


def _examples(captions: Sequence[Caption], own: np.ndarray, kept: np.ndarray) -> list[str]:
    lines = []
    for low, high in itertools.pairwise(_LEVELS):
        places = np.flatnonzero((own >= low) & ((own < high) | (high == 1)))
        lines.append(f"{low:.1f} to {high:.1f}: {len(places):,} captions, {kept[places].sum():,} kept")
        for place in np.random.default_rng(0).permutation(places)[:_EXAMPLES]:
            text = captions[place].text
            shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
            lines.append(f"- {'kept' if kept[place] else 'dropped'} ({own[place]:.2f}), {captions[place].label}: {shown}")
    return lines


def _draw(path: Path, own: np.ndarray, coefficients: np.ndarray, least: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure((9, 3.2), layout="constrained")
    before, after = figure.subplots(1, 2)
    before.hist(own, bins=40, range=(0, 1), color="tab:blue")
    before.axvline(least, color="tab:red", linewidth=1, label=f"dropped below {least:g}")
    before.legend()
    before.set(title="before: probability of the own class", xlabel="probability", ylabel="captions")
    after.hist(coefficients, bins=40, range=(0, 1), color="tab:blue")
    after.set(title="after: coefficient of the captions kept", xlabel="coefficient")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
