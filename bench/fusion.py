"""Does a fusion beat its best part? Cross-validated accuracy on frozen features, one JSON line per recipe and inputs.

    python bench/fusion.py products.csv --label=category --text=title --image_weights=mobilenet_v2.weights.h5 \\
        --text_encoder=all-MiniLM-L6-v2

A table with an image and text columns is packed into one split, and what a frozen image tower and a frozen sentence encoder
make of each row is computed once. Then every recipe is trained on the image alone, the texts alone and both, on the same folds
and seeds; the model that was trained on both is also asked with one of them hidden. With --split a file's test rows are asked
instead of folds. The recipe is never chosen on the rows that it is measured on: the recipes are fixed here.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.model_selection import StratifiedKFold

from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.make_features import make_features
from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.features import FeatureSpec, present
from mm_keras.model.architectures import ARCHITECTURES
from mm_keras.model.frozen import split_at_frozen
from mm_keras.model.fusion import build_bilinear_fusion, build_gated_fusion
from mm_keras.model.image_tower import build_image_tower
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.model.tuning_dnn import build_tuning_dnn
from mm_keras.model.two_tower import build_two_tower
from mm_keras.objectives.losses import make_loss
from mm_keras.training.optimizer import make_optimizer
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import table

_PLAIN = {"lexical_encoder": None, "tune_image": False, "normalize": False, "modality_dropout": 0.0}
_UNTUNED = {"tuning_dnn": functools.partial(build_tuning_dnn, units=())}
# What is built, and how it is trained by gradient. The first is the toolkit's default for models that are not solved.
RECIPES: dict[str, tuple[dict, dict]] = {
    "default": ({}, {}),
    "default, auxiliary heads": ({}, {"auxiliary_weight": 0.5}),
    "default, no label smoothing": ({}, {"label_smoothing": 0.0}),
    "default, no words": ({"lexical_encoder": None}, {}),
    "gated": ({"fusion": build_gated_fusion}, {}),
    "bilinear": ({"fusion": build_bilinear_fusion}, {}),
    "plain concatenation": (_PLAIN, {"label_smoothing": 0.0}),
    "plain concatenation, linear": (_PLAIN | _UNTUNED, {"label_smoothing": 0.0}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--label", required=True, metavar="COLUMN")
    parser.add_argument("--id", default="id", metavar="COLUMN")
    parser.add_argument("--image", default="image", metavar="COLUMN")
    parser.add_argument("--text", default="title", metavar="COLUMN,…")
    parser.add_argument("--architecture", default="mobilenet_v2", choices=sorted(ARCHITECTURES), metavar="NAME")
    parser.add_argument("--image_weights", required=True, metavar="FILE", help="of the architecture, see docs/models.md")
    parser.add_argument("--text_encoder", required=True, metavar="FOLDER", help="Hugging Face folder or keras_hub preset")
    parser.add_argument("--split", type=Path, metavar="FILE", help="a CSV id,split: measure on its test rows, not on folds")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--label_smoothing", type=float, default=0.2)
    parser.add_argument("--recipe", action="append", choices=list(RECIPES), help="may be repeated (default: all)")
    options = parser.parse_args()
    fields = tuple(options.text.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        data = _Data(options, fields, Path(scratch) / "rows")
        for name in options.recipe or RECIPES:
            for inputs in (("image",), fields, ("image", *fields)):
                _measure(data, name, inputs, options)


class _Data:
    """All rows with their frozen features, and how they are split."""

    def __init__(self, options: argparse.Namespace, fields: tuple[str, ...], folder: Path):
        columns = table.Columns(image=options.image, text=fields, label=options.label, id=options.id)
        pack(table.make_source([options.table], columns), folder, PackOptions(fractions={"all": 1.0}))
        tokenizer = functools.partial(make_pretrained_tokenizer, source=options.text_encoder)
        lengths = dict.fromkeys(fields, 32) | {"description": 128} if "description" in fields else dict.fromkeys(fields, 32)
        size = ARCHITECTURES[options.architecture].size
        self.features = make_features(
            str(folder), text_fields=fields, max_tokens=lengths, image_size=(size, size), image_fit="stretch",
            make_tokenizer=tokenizer, train_split="all",
        )  # fmt: skip
        self.tower = build_image_tower(self.features.image, options.architecture, options.image_weights, 1.0, pooling="avg_max")
        self.encoder = build_transformer_encoder(self.features.texts[0], options.text_encoder)
        whole = self.build(self.features)
        encoders, trained = split_at_frozen(whole, self.features, self.features.modalities)
        cache = FeatureCache(Split.open(folder, "all"), self.features, encoders, list(trained.input))
        self.arrays = cache.inputs(np.arange(len(cache.labels)))
        self.labels, self.ids = cache.labels, cache.ids

    def build(self, features: FeatureSpec, **recipe) -> keras.Model:
        return build_two_tower(features, image_tower=lambda _: self.tower, text_encoder=lambda *_, **__: self.encoder, **recipe)

    def folds(self, options: argparse.Namespace, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(rows to learn from, rows to measure on) pairs."""
        if options.split:
            with open(options.split, newline="", encoding="utf-8") as file:
                splits = {row["id"]: row["split"] for row in csv.DictReader(file)}
            ours = np.array([splits[row_id] for row_id in self.ids])
            return [(np.flatnonzero(ours == "train"), np.flatnonzero(ours == "test"))]
        folds = StratifiedKFold(options.folds, shuffle=True, random_state=seed)
        return list(folds.split(self.labels, self.labels))


def _measure(data: _Data, name: str, inputs: tuple[str, ...], options: argparse.Namespace) -> None:
    accuracies: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        for train, test in data.folds(options, seed):
            model = _train(data, RECIPES[name], data.features.only(inputs), train, options, seed)
            asked = {part: data.arrays[part][test] for part in model.input}
            shown = {"": inputs} | (
                {f", {hidden} hidden": set(inputs) - {hidden} for hidden in inputs} if len(inputs) > 1 else {}
            )
            for label, visible in shown.items():
                hidden = {present(m): np.zeros(len(test), bool) for m in inputs if m not in visible}
                answer = model.predict(asked | hidden, batch_size=256, verbose=0)
                logits = answer["logits"] if isinstance(answer, dict) else answer
                accuracies.setdefault(label, []).append(float((logits.argmax(axis=1) == data.labels[test]).mean()))
    for label, values in accuracies.items():
        line = {
            "bench": "fusion",
            "tower": options.architecture,
            "label": options.label,
            "recipe": name,
            "inputs": " + ".join(inputs) + label,
        }
        spread = np.std(np.mean(np.reshape(values, (options.seeds, -1)), axis=1))
        line |= {"accuracy": round(float(np.mean(values)), 4), "std_of_seeds": round(float(spread), 4), "fits": len(values)}
        print(json.dumps(line), flush=True)


def _train(
    data: _Data, recipe: tuple[dict, dict], features: FeatureSpec, rows: np.ndarray, options: argparse.Namespace, seed: int
) -> keras.Model:
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    built, trained = recipe
    whole = data.build(features, **built)
    _, model = split_at_frozen(whole, features, features.modalities, trained.get("auxiliary_weight", 0.0))
    loss = make_loss(False, label_smoothing=trained.get("label_smoothing", options.label_smoothing))
    steps = -(-len(rows) // 32) * options.epochs
    model.compile(make_optimizer(steps, learning_rate=options.learning_rate), loss, jit_compile=False)
    inputs = {part: data.arrays[part][rows] for part in model.input}
    model.fit(inputs, data.labels[rows], batch_size=32, epochs=options.epochs, verbose=0)
    return model


if __name__ == "__main__":
    main()
