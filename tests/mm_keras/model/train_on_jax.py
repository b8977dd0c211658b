"""Builds, trains, saves and reloads the parts of models with Keras on JAX; `test_pure_keras.py` runs it as a process.

python -m tests.mm_keras.model.train_on_jax parts     every part of the harness answers as before after it was saved
python -m tests.mm_keras.model.train_on_jax models    two-tower models train a step with the losses of `mm_keras.objectives`,
                                                      models are fused and saved, and every metric is updated
python -m tests.mm_keras.model.train_on_jax some      the same with the models, combinations and metrics of QUICK alone

It prints as JSON what it did, and whether importing `mm_keras.model`, `mm_keras.objectives` and `mm_keras.features` imported
TensorFlow. Pretrained transformers are left out: keras_hub imports TensorFlow on every backend.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import mm_keras.features
import mm_keras.model
import mm_keras.objectives

for _package in (mm_keras.model, mm_keras.objectives):
    for _module in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(_module.name)
IMPORTED_TENSORFLOW = "tensorflow" in sys.modules  # before Keras itself may ask for it

from mm_keras.features import FeatureSpec, ImageSpec, TokenText, present  # noqa: E402
from mm_keras.model.frozen import freeze, split_at_frozen  # noqa: E402
from mm_keras.model.fusion import (  # noqa: E402
    build_bilinear_fusion,
    build_concatenation,
    build_cross_attention_fusion,
    build_gated_fusion,
)
from mm_keras.model.head import build_class_embedding_head, build_head, build_per_label_head  # noqa: E402
from mm_keras.model.image_tower import build_small_cnn  # noqa: E402
from mm_keras.model.late_fusion import (  # noqa: E402
    MajorityVote,
    Stacking,
    WeightedSum,
    build_answers,
    build_late_fusion,
    voting_patterns,
)
from mm_keras.model.split_at_embeddings import split_at_embeddings  # noqa: E402
from mm_keras.model.text_encoder import build_recurrent_encoder, build_small_text_encoder  # noqa: E402
from mm_keras.model.tuning_dnn import build_tuning_dnn  # noqa: E402
from mm_keras.model.two_tower import build_two_tower  # noqa: E402
from mm_keras.objectives.losses import (  # noqa: E402
    make_asymmetric_loss,
    make_focal_loss,
    make_loss,
    make_mse_loss,
)
from mm_keras.objectives.metrics import make_metrics  # noqa: E402
from mm_keras.objectives.streaming_metrics import AVERAGES, SCORES  # noqa: E402
from tests.mm_keras.model.harness import BATCH, LAYERS, PARTS, SLOW_PARTS, TEXT, check_saving, outputs_of  # noqa: E402

NUM_LABELS = 3
SCORE_NAMES = [f"{average}_{score}" for average in AVERAGES for score in SCORES]
METRICS = {
    False: ["top_1", "top_2", *SCORE_NAMES, "ece", "cross_entropy"],
    True: [*SCORE_NAMES, *(f"imaged_{score}" for score in SCORES), "binned_mAP", "ece", "cross_entropy"],
}
QUICK_METRICS = {False: ["top_2", "macro_f1", "ece", "cross_entropy"], True: ["samples_recall", "imaged_f1", "binned_mAP"]}
MODELS = {  # name -> (fusion, head, text encoder, loss, are there several labels an example)
    "concatenation": (
        build_concatenation,
        build_head,
        functools.partial(build_small_text_encoder, width=4),
        make_loss,
        False,
    ),
    "gated": (
        functools.partial(build_gated_fusion, width=4),
        build_per_label_head,
        functools.partial(build_recurrent_encoder, embedding_width=4, width=4),
        make_mse_loss,
        True,
    ),
    "bilinear": (
        functools.partial(build_bilinear_fusion, width=4),
        functools.partial(build_class_embedding_head, class_embeddings=np.eye(NUM_LABELS)),
        functools.partial(build_recurrent_encoder, cell="gru", embedding_width=4, width=4),
        make_focal_loss,
        False,
    ),
    "cross-attention": (
        functools.partial(build_cross_attention_fusion, width=4, num_heads=2),
        build_head,
        functools.partial(build_small_text_encoder, width=4),
        make_asymmetric_loss,
        True,
    ),
}
QUICK = ("cross-attention", "stacking")  # the ones with the most layers of their own


def _features(multi_label: bool) -> FeatureSpec:
    texts = (TEXT, TokenText("story", TEXT.tokenizer, 5))
    return FeatureSpec(ImageSpec((8, 8)), texts, tuple("abc"), multi_label)


def _build(name: str, features: FeatureSpec) -> keras.Model:
    fusion, head, text_encoder, _, _ = MODELS[name]
    return build_two_tower(
        features,
        image_tower=functools.partial(build_small_cnn, widths=(4,)),
        text_encoder=text_encoder,
        tuning_dnn=functools.partial(build_tuning_dnn, units=(4,)),
        fusion=fusion,
        head=head,
        share_text_encoder=False,
    )


def _batch(features: FeatureSpec) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = {}
    for name, (shape, dtype) in features.inputs().items():
        inputs[name] = rng.integers(0, 2 if dtype == "bool" else 20, (BATCH, *shape)).astype(dtype)
    if features.multi_label:
        return inputs, rng.integers(0, 2, (BATCH, NUM_LABELS)).astype("float32")
    return inputs, np.arange(BATCH, dtype="int32") % NUM_LABELS


def _train_a_step(model: keras.Model, make, features: FeatureSpec, inputs: dict[str, np.ndarray]) -> None:
    metrics = make_metrics(features.multi_label, NUM_LABELS)
    model.compile("sgd", make(features.multi_label), weighted_metrics=metrics)
    before = model.get_weights()
    logs = model.train_on_batch(inputs, _batch(features)[1], np.ones(BATCH, "float32"), return_dict=True)
    assert np.isfinite(logs["loss"]), logs
    assert {metric.name for metric in metrics} <= set(logs), logs
    assert any(not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def train_models(names: list[str]) -> list[str]:
    """Trains the models a step, and the part of one that is behind a frozen tower, with auxiliary heads."""
    for name in names:
        *_, make, multi_label = MODELS[name]
        features = _features(multi_label)
        if len(names) == 1:
            features = features.only(["image", "story"])
        model, inputs = _build(name, features), _batch(features)[0]
        _train_a_step(model, make, features, inputs)
    freeze(model, ["image"])
    encoders, trained = split_at_frozen(model, features, ("image",), auxiliary_weight=0.5, text_runs=BATCH)
    remaining = {name: array for name, array in inputs.items() if name in trained.input}
    remaining |= {"image_encoded": outputs_of(encoders["image"], {"image": inputs["image"]})[0]}
    _train_a_step(trained, make, features, remaining)
    return [*names, "part behind a frozen tower"]


def measure(is_quick: bool) -> list[str]:
    """Asks every loss, and every metric or one of a kind, about logits of both kinds of labels."""
    done = []
    for multi_label in (False, True):
        labels = _batch(_features(multi_label))[1]
        logits = np.random.default_rng(1).normal(size=(BATCH, NUM_LABELS)).astype("float32")
        for make in (make_loss, make_mse_loss, make_focal_loss, *([make_asymmetric_loss] if multi_label else [])):
            assert np.isfinite(make(multi_label)(labels, logits)), make
            done.append(make.__name__)
        for metric in make_metrics(multi_label, NUM_LABELS, (QUICK_METRICS if is_quick else METRICS)[multi_label]):
            metric.update_state(labels, logits, np.ones(BATCH, "float32"))
            assert np.isfinite(metric.result()), metric
            done.append(metric.name)
    return done


def cut_and_fuse(folder: Path, is_quick: bool) -> list[str]:
    """Brings two models together in every way, or in that of QUICK, saves each, and cuts the last one behind its embeddings."""
    whole = _features(multi_label=False)
    parts = [whole.only(["image", "title"]), whole.only(["story"])]
    inputs = _batch(whole)[0]
    combinations = {
        "weighted sum": WeightedSum(False, np.array([[0.3], [0.7]])),
        "majority vote": MajorityVote(False, np.zeros((2, NUM_LABELS))),
        "stacking": Stacking(False, np.ones((3, 3, NUM_LABELS)), voting_patterns(parts, whole)),
    }
    if is_quick:
        combinations = {name: made for name, made in combinations.items() if name in QUICK}
    answers = build_answers([_build("concatenation", features) for features in parts], parts, whole)
    for combination in combinations.values():
        fused = build_late_fusion(answers, combination)
        check_saving(fused, inputs, folder)
    encoders, rest = split_at_embeddings(fused, whole.modalities)
    encoded = {name: keras.ops.convert_to_numpy(tensor) for name, tensor in encoders(inputs).items()}
    encoded |= {present(modality): inputs[present(modality)] for modality in whole.modalities}
    np.testing.assert_allclose(outputs_of(rest, encoded)[0], outputs_of(fused, inputs)[0], atol=1e-5)
    return list(combinations)


def save_parts(folder: Path) -> list[str]:
    """Saves and reloads every part, and the one layer that only pretrained encoders have; the models have all other layers."""
    parts = PARTS | SLOW_PARTS | {"SplitInWindows": LAYERS["SplitInWindows"]}
    for part in parts.values():
        check_saving(part.build(), part.inputs, folder)
    return list(parts)


def main(what: str) -> None:
    assert keras.backend.backend() == "jax", keras.backend.backend()
    done = {"imported_tensorflow": IMPORTED_TENSORFLOW}
    with tempfile.TemporaryDirectory() as folder:
        if what == "parts":
            done["parts"] = save_parts(Path(folder))
        else:
            names = [name for name in MODELS if what == "models" or name in QUICK]
            done |= {
                "trained": train_models(names),
                "fused": cut_and_fuse(Path(folder), what == "some"),
                "measured": measure(what == "some"),
            }
    print(json.dumps(done))


if __name__ == "__main__":
    main(sys.argv[1])
