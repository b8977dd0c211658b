"""Says what was solved: the candidates with their held-out scores, what was chosen, and how well it is calibrated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mm_keras.objectives.metrics import evaluate_logits
from mm_keras.runs.evaluate import markdown_table
from mm_keras.solving.candidates import Candidate
from mm_keras.solving.ensemble import mean_loss
from mm_keras.solving.rows import Rows
from mm_keras.solving.solve import Chosen, Solution, score


def describe_solution(solution: Solution, rows: Rows, modalities: Sequence[str]) -> dict:
    """What a solution consists of, as JSON values.

    Args:
        solution: what `solve` returned.
        rows: the training examples that it was found for.
        modalities: the names of the modalities.

    Returns:
        {"num_examples", "measure": "accuracy" or "mAP", "inputs": [{"inputs", "num_examples", "score", "standard_error",
        "log_loss", "ece_before", "ece", "gain": what it adds to its best part, "ensemble": {name of a candidate: share}}],
        "candidates": [{"name", "inputs", "score", "log_loss", "penalty"}]}. All scores are of held-out folds.
    """
    names = [_name(candidate, rows) for candidate in solution.candidates]
    values: dict[tuple[int, ...], float] = {}
    inputs = []
    for chosen in solution.chosen:
        described = _describe_chosen(chosen, rows, modalities, names, solution.candidates)
        parts = [value for part, value in values.items() if set(part) < set(chosen.modalities)]
        described["gain"] = described["score"] - max(parts) if parts else None
        values[chosen.modalities] = described["score"]
        inputs.append(described)
    candidates = []
    for name, candidate in zip(names, solution.candidates, strict=True):
        at = rows.with_any(candidate.modalities)
        measured = score(candidate.held_out[at], rows.targets[at], rows.weights[at], rows.multi_label)
        candidates.append(
            {
                "name": name,
                "inputs": _joined(candidate.modalities, modalities),
                "penalty": candidate.penalty,
                "score": measured,
                "log_loss": candidate.loss_value,
            }
        )
    return {
        "num_examples": len(rows.targets),
        "measure": "mAP" if rows.multi_label else "accuracy",
        "inputs": inputs,
        "candidates": candidates,
    }


def format_solution(described: Mapping) -> str:
    """The description as two Markdown tables: what was chosen for each set of inputs, and all candidates."""
    chosen = [["inputs", "examples", described["measure"], "adds", "log-loss", "ECE before → after", "ensemble"]]
    for row in described["inputs"]:
        gain = "" if row["gain"] is None else f"{row['gain']:+.3f}"
        ensemble = ", ".join(f"{share:.0%} {name}" for name, share in row["ensemble"].items())
        measured = f"{row['score']:.3f}" + (f" ± {row['standard_error']:.3f}" if row["standard_error"] is not None else "")
        ece = f"{row['ece_before']:.3f} → {row['ece']:.3f}"
        chosen.append([row["inputs"], f"{row['num_examples']:,}", measured, gain, f"{row['log_loss']:.3f}", ece, ensemble])
    candidates = [["candidate", "inputs", "penalty", described["measure"], "log-loss"]]
    for row in described["candidates"]:
        candidates.append([row["name"], row["inputs"], f"{row['penalty']:g}", f"{row['score']:.3f}", f"{row['log_loss']:.3f}"])
    size = described["head_bytes"] / 1e6
    return (
        f"solved in {described['seconds']:.0f} s on {described['num_examples']:,} examples; the head has {size:.1f} MB. "
        f"Scores are of held-out folds.\n\n{markdown_table(chosen)}\n\n{markdown_table(candidates)}"
    )


def _describe_chosen(
    chosen: Chosen, rows: Rows, modalities: Sequence[str], names: Sequence[str], candidates: Sequence[Candidate]
) -> dict:
    at = chosen.rows
    targets, weights = rows.targets[at], rows.weights[at]
    logits = chosen.held_out[at]
    mixed = sum(share * candidates[number].held_out[at] for number, share in chosen.shares.items())
    measured = score(logits, targets, weights, rows.multi_label)
    ensemble: dict[str, float] = {}
    for number, share in chosen.shares.items():
        ensemble[names[number]] = ensemble.get(names[number], 0.0) + share
    labels = targets if rows.multi_label else targets.argmax(axis=1)
    before, after = (evaluate_logits(answers, labels, rows.multi_label)["ece"] for answers in (mixed, logits))
    return {
        "inputs": _joined(chosen.modalities, modalities),
        "num_examples": len(at),
        "score": measured,
        "standard_error": None if rows.multi_label else math.sqrt(measured * (1 - measured) / len(at)),
        "log_loss": mean_loss(logits, targets, weights, rows.multi_label),
        "ece_before": before,
        "ece": after,
        "ensemble": ensemble,
    }


def _name(candidate: Candidate, rows: Rows) -> str:
    kind = candidate.method
    if candidate.kernel.gamma is not None:
        kind = f"{'Gaussian' if kind == 'ridge' else kind} {candidate.kernel.gamma:g}"
    return f"{kind} on {' + '.join(rows.blocks[block].name for block in candidate.kernel.blocks)}"


def _joined(numbers: Sequence[int], modalities: Sequence[str]) -> str:
    return " + ".join(modalities[number] for number in numbers)
