"""The tables of a run's report, from its sections' content."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mm_keras.report.evidence import Evidence

Rows = list[dict]


def make_tables(evidence: Evidence, sections: Mapping[str, Mapping]) -> dict[str, Rows]:
    """The tables, name -> rows: "predictions" always, the others for those sections that were made."""
    tables = {"predictions": _predictions(evidence)}
    if content := sections.get("inputs"):
        tables["inputs"] = [_flat(row, "together") for row in content["subsets"]] + [
            _flat(row, "alone") for row in content["baselines"]
        ]
    if content := sections.get("classes"):
        tables["classes"] = [_class_row(row) for row in content["labels"]]
        names = content["confusion"]["labels"]
        counts = content["confusion"]["counts"]
        tables["confusion"] = [
            {"given": name, **dict(zip(names, row, strict=True))} for name, row in zip(names, counts, strict=True)
        ]
    if content := sections.get("data"):
        if content["leaks"]:
            tables["copies"] = content["leaks"]["rows"]
        tables["label_errors"] = [
            {name: row[name] for name in ("split", "id", "given", "suggested", "score", "neighbours_agree")} | row["texts"]
            for checked in content["label_errors"]
            for row in checked["suspects"]
        ]
    return {name: rows for name, rows in tables.items() if rows}


def _predictions(evidence: Evidence) -> Rows:
    """A row an example: what was given, predicted, and how probable the best label is."""
    best = evidence.probabilities.argmax(axis=1)
    rows = []
    for row, example in enumerate(evidence.examples.ids):
        rows.append(
            {
                "id": example,
                **({"given": evidence.names_of(evidence.true[row])} if evidence.labels is not None else {}),
                "predicted": evidence.names_of(evidence.predicted[row]),
                "best": evidence.names[best[row]],
                "probability": float(evidence.probabilities[row, best[row]]),
                **({"right": bool(evidence.right[row])} if evidence.labels is not None else {}),
                **{f"has {name}": bool(evidence.present[row, number]) for number, name in enumerate(evidence.modalities)},
            }
        )
    return rows


def _flat(row: Mapping, trained: str) -> dict:
    flat = {"inputs": row["inputs"], "trained": trained}
    for name, result in row["measures"].items():
        flat |= {name: result["value"], f"{name} low": result["low"], f"{name} high": result["high"]}
    return flat


def _class_row(row: Mapping) -> dict:
    flat: dict = {}
    for name, value in row.items():
        if name in ("precision", "recall", "f1"):
            result = value or dict.fromkeys(("value", "low", "high"), np.nan)
            flat |= {name: result["value"], f"{name} low": result["low"], f"{name} high": result["high"]}
        else:
            flat[name] = value
    return flat
