"""Adds classes to a trained run from their texts or from pictures of them, without training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
from absl import logging

from mm_keras.features import IMAGE
from mm_keras.model import head
from mm_keras.runs.class_embeddings import ClassEncoder, read_texts, report_equal, write_class_texts
from mm_keras.runs.predict import Predictor
from mm_keras.runs.run_folder import RunFolder
from tfrecords_tools.dataset.atomic_file import atomic_file, write_bytes
from tfrecords_tools.dataset.checksums import check
from tfrecords_tools.dataset.info import CLASS_DESCRIPTIONS_FILE, LABELS_FILE
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.sources.files import iter_images

_BATCH_SIZE = 32


def add_classes(workdir: str | Path, texts: str | Path, output: str | Path) -> Path:
    """Makes a new run that knows further classes, from a run with a class-embedding head, which stays unchanged.

    The new run can be evaluated, exported and used for prediction like any other, on the old dataset too. Its logits of the old
    classes do not change; softmax probabilities do, since the new classes take their share. The file labels.txt in its folder
    serves for packing data with the new classes: `tfrecords-tools pack … --labels=<output>/labels.txt`.

    Args:
        workdir: the run folder.
        texts: texts of the new classes: JSON Lines of label and text, or a CSV with columns label, description. Or a folder
            with a subfolder of pictures for each new class.
        output: the run folder to make.

    Returns:
        `output`.

    Raises:
        FileExistsError: if `output` holds a run already.
        FileNotFoundError: if there is no run or file.
        ValueError: for a run with another head, no new class, or one that is there already, has an empty text, no picture, or
            one that cannot be read.

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
    encoder, texts = ClassEncoder.load(run.class_encoder), Path(texts)
    new_texts = {} if texts.is_dir() else read_texts(texts)
    pictures = _pictures_of_classes(texts) if texts.is_dir() else {}
    names = [*new_texts, *pictures]
    known = [name for name in names if name in features.labels]
    empty = [name for name, text in new_texts.items() if not text.strip()]
    if known or empty or not names:
        reason = f"{known[0]!r} is a class already" if known else f"{empty[0]!r} has no text" if empty else "it holds no class"
        raise ValueError(f"{texts}: {reason}")
    embeddings = _embed_pictures(run, model, pictures) if pictures else encoder(list(new_texts.values()))
    model = head.add_classes(model, embeddings)
    features = dataclasses.replace(features, labels=(*features.labels, *names))
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
    new.save_facts(**run.facts() | {"classes_added": {"from": str(run.path.absolute()), "labels": names}})
    logging.info(f"{new.path}: {len(names):,} classes added to {len(features.labels) - len(names):,}")
    return new.path


def _pictures_of_classes(folder: Path) -> dict[str, list[Path]]:
    """The pictures in each subfolder, whose name is that of a class; ValueError for one without any."""
    subfolders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    pictures = {path.name: list(iter_images(path)) for path in subfolders}
    for name, paths in pictures.items():
        if not paths:
            raise ValueError(f"{folder / name} holds no picture of the class {name!r}")
    return pictures


def _embed_pictures(run: RunFolder, model: keras.Model, pictures: dict[str, list[Path]]) -> np.ndarray:
    """Embeds each class by its pictures alone: float32 [K, C]. A picture that cannot be read is an error, which names it."""
    predictor = Predictor(run.path)
    if IMAGE not in predictor.features.modalities:
        raise ValueError(
            f"{run.path} sees no pictures, only {list(predictor.features.modalities)}: describe the classes by texts"
        )
    embeddings = []
    for paths in pictures.values():
        examples = [predictor.read({IMAGE: str(path)}) for path in paths]
        batches = [examples[start : start + _BATCH_SIZE] for start in range(0, len(examples), _BATCH_SIZE)]
        fused = np.concatenate([predictor.embeddings(batch) for batch in batches])
        embeddings.append(head.embed_class(model, fused))
    return np.stack(embeddings)
