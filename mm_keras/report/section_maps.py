"""The section "Maps": the embeddings of images, texts and of both in two dimensions, and which labels' texts are alike."""

from __future__ import annotations

import numpy as np

from mm_keras.features import present
from mm_keras.report.evidence import Evidence
from mm_keras.report.maps import MOST_POINTS, make_maps_of
from mm_keras.report.neighbours import unit_rows

_MOST_COLOURED = 10  # labels with a colour of their own
_PICTURES = 12  # on the map of the fused embeddings
_MOST_LABELS = 30  # whose texts are compared


def make_maps(evidence: Evidence) -> dict:
    """The section's content, as JSON values: points of at most 500 examples."""
    number = min(MOST_POINTS, len(evidence))
    rows = np.sort(np.random.default_rng(evidence.seed).choice(len(evidence), number, replace=False))
    labels = [_first(evidence, row) for row in rows]
    names, counts = np.unique([label for label in labels if label], return_counts=True)
    coloured = [str(name) for name in names[np.argsort(-counts, kind="stable")][:_MOST_COLOURED]]
    spaces = []
    for name, vectors in evidence.embeddings.items():
        modality = name.removesuffix(", tuned")
        places = np.arange(number)
        if modality in evidence.modalities:
            places = np.flatnonzero(evidence.inputs[present(modality)][rows])
        chosen = vectors[rows[places]]
        for method, points in make_maps_of(chosen, evidence.seed).items():
            spaces.append(
                {
                    "space": name,
                    "method": method,
                    "points": [
                        {"x": float(x), "y": float(y), "id": str(evidence.examples.ids[rows[place]]), "label": labels[place]}
                        for place, (x, y) in zip(places, points, strict=True)
                    ],
                    "pictures": _pictures(evidence, rows[places]) if name == "fused" and method == "t-SNE" else [],
                }
            )
    return {
        "count": number,
        "is_sample": number < len(evidence),
        "coloured": coloured,
        "maps": spaces,
        "similar": _similar(evidence),
    }


def _first(evidence: Evidence, row: int) -> str | None:
    """The label that an example is coloured by: the given one, of several the first; without labels the predicted one."""
    labels = evidence.names_of(evidence.true[row] if evidence.labels is not None else evidence.predicted[row])
    return labels[0] if labels else None


def _pictures(evidence: Evidence, rows: np.ndarray) -> list[dict]:
    """Some examples with a picture, and which point is theirs."""
    places = np.flatnonzero(evidence.examples.sizes[rows].all(axis=1))
    places = places[np.linspace(0, len(places) - 1, min(_PICTURES, len(places))).round().astype(int)] if len(places) else places
    return [{"point": int(place), "split": evidence.examples.name, "row": int(rows[place])} for place in places]


def _similar(evidence: Evidence) -> dict | None:
    """How alike the texts of labels are: cosines of their mean text embeddings, of the most frequent labels."""
    texts = [name for name in evidence.modalities if name in evidence.examples.texts]
    if evidence.labels is None or not texts:
        return None
    joined = np.concatenate([unit_rows(evidence.embeddings[name]) for name in texts], axis=1)
    counts = evidence.true.sum(axis=0)
    frequent = np.argsort(-counts, kind="stable")[:_MOST_LABELS]
    frequent = np.sort(frequent[counts[frequent] > 0])
    if len(frequent) < 2:
        return None
    centred = joined - joined.mean(axis=0)
    means = unit_rows(np.stack([centred[evidence.true[:, label]].mean(axis=0) for label in frequent]))
    return {"labels": [evidence.names[label] for label in frequent], "cosines": (means @ means.T).astype(float).tolist()}
