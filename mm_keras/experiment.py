"""An experiment from records to an exported model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mm_keras.distribution.multi_worker import this_worker
from mm_keras.runs.evaluate import evaluate
from mm_keras.runs.export import export
from mm_keras.runs.run_folder import RunFolder
from mm_keras.training.train import train


def train_and_evaluate(
    workdir: str | Path,
    train: Callable = train,
    evaluate: Callable[..., dict] | None = evaluate,
    export: Callable[..., Path] | None = export,
    baselines: Sequence[str] = (),
) -> dict | None:
    """Trains a model, then baselines that see one modality each; evaluates them in one table; exports the model.

    Args:
        workdir: the run folder to make.
        train: `(workdir=, modalities=) -> model`.
        evaluate: `(workdir) -> report`; None: stop after training.
        export: `(workdir) -> SavedModel folder`; None: do not export.
        baselines: modalities, "image" or text fields, of which each gets a model trained on it alone.

    Returns:
        the report of `evaluate`, if any; of several workers the chief alone makes it.
    """
    run = RunFolder(workdir)
    train(workdir=run.path)
    for modality in baselines:
        print(f"\nbaseline: {modality} alone")
        train(workdir=run.baselines / modality, modalities=(modality,))
    if not this_worker().is_chief:
        return None
    print()
    report = evaluate(run.path) if evaluate else None
    if export:
        print()
        export(run.path)
    return report
