"""Adds classes to a trained run from their texts, without training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import logging

from mm_keras.model import head
from mm_keras.runs.class_embeddings import ClassEncoder, read_texts, report_equal, write_class_texts
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.atomic_file import atomic_file, write_bytes
from tfrecords_tools.dataset.checksums import check
from tfrecords_tools.dataset.info import CLASS_DESCRIPTIONS_FILE, LABELS_FILE
from tfrecords_tools.dataset.labels import LabelVocabulary


def add_classes(workdir: str | Path, texts: str | Path, output: str | Path) -> Path:
    """Makes a new run that knows further classes, from a run with a class-embedding head, which stays unchanged.

    The new run can be evaluated, exported and used for prediction like any other, on the old dataset too. Its logits of the old
    classes do not change; softmax probabilities do, since the new classes take their share. The file labels.txt in its folder
    serves for packing data with the new classes: `tfrecords-tools pack … --labels=<output>/labels.txt`.

    Args:
        workdir: the run folder.
        texts: texts of the new classes: JSON Lines of label and text, or a CSV with columns label, description.
        output: the run folder to make.

    Returns:
        `output`.

    Raises:
        FileExistsError: if `output` holds a run already.
        FileNotFoundError: if there is no run or file.
        ValueError: for a run with another head, no new class, or one that is there already or has an empty text.

    Example:
        >>> add_classes("runs/products", "classes.jsonl", "runs/more_products")
        PosixPath('runs/more_products')
    """
    run, new = RunFolder(workdir), RunFolder(output)
    new.check_free(overwrite=False)
    model, features = run.load_model()
    if not run.class_encoder.is_dir():
        raise ValueError(
            f"{run.path} has no class-embedding head; train one with build_two_tower.head = @build_class_embedding_head and "
            "train.embed_classes = @embed_classes"
        )
    new_texts = read_texts(Path(texts))
    known = [name for name in new_texts if name in features.labels]
    empty = [name for name, text in new_texts.items() if not text.strip()]
    if known or empty or not new_texts:
        reason = f"{known[0]!r} is a class already" if known else f"{empty[0]!r} has no text" if empty else "it holds no class"
        raise ValueError(f"{texts}: {reason}")
    encoder = ClassEncoder.load(run.class_encoder)
    model = head.add_classes(model, encoder(list(new_texts.values())))
    features = dataclasses.replace(features, labels=(*features.labels, *new_texts))
    report_equal(features.labels, model.get_layer("head").get_layer("class_similarity").class_embeddings.numpy())
    new.start(overwrite=False)
    features.save(new.path)
    LabelVocabulary(list(features.labels)).save(new.path / LABELS_FILE)
    with atomic_file(new.best) as temporary:
        model.save(temporary)
    encoder.save(new.class_encoder)
    write_class_texts(new.class_encoder, read_texts(run.class_encoder / CLASS_DESCRIPTIONS_FILE) | new_texts)
    check(run.thresholds)
    if run.thresholds.is_file():
        write_bytes(new.thresholds, run.thresholds.read_bytes())
    new.save_facts(**run.facts() | {"classes_added": {"from": str(run.path.absolute()), "labels": list(new_texts)}})
    logging.info(f"{new.path}: {len(new_texts):,} classes added to {len(features.labels) - len(new_texts):,}")
    return new.path
