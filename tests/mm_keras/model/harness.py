"""The harness of towers, encoders, tuning DNNs, fusions, heads and layers: what every one of them must survive.

A new part is an entry of `PARTS`, a new layer that a saved model may name an entry of `LAYERS`. `test_parts.py` then builds,
calls, masks, saves, reloads and traces it, in float32 and in mixed precision; `test_pure_keras.py` saves and reloads parts on
JAX, too, and `tests/mm_keras/runs/test_load_model.py` loads it in a fresh process. Nothing here may import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np

from mm_keras.features import EmbeddedText, EmbedderSpec, ImageSpec, TokenizerSpec, TokenText
from mm_keras.model.fusion import (
    MaskedSoftmax,
    build_bilinear_fusion,
    build_concatenation,
    build_cross_attention_fusion,
    build_gated_fusion,
)
from mm_keras.model.head import (
    ClassSimilarity,
    PerLabelDense,
    build_class_embedding_head,
    build_head,
    build_per_label_head,
)
from mm_keras.model.image_tower import build_image_tower, build_small_cnn
from mm_keras.model.late_fusion import MajorityVote, Stacking, WeightedSum
from mm_keras.model.layers import MaskedMaxPooling, MaskedMeanPooling, MissingEmbedding, ModalityDropout, ZeroPadding
from mm_keras.model.lexical_encoder import BagOfTokens, build_lexical_encoder
from mm_keras.model.solved_head import SolvedAnswers, UnitBlocks, WeightedBag
from mm_keras.model.text_encoder import build_embedding_encoder, build_recurrent_encoder, build_small_text_encoder
from mm_keras.model.transformer_encoder import SplitInWindows
from mm_keras.model.tuning_dnn import build_tuning_dnn
from mm_keras.model.vision_transformer import build_vision_transformer
from mm_keras.model.word_vector_encoder import build_word_vector_encoder

BATCH = 5
TEXT = TokenText("title", TokenizerSpec("words", tuple(f"w{index}" for index in range(20))), 10)
_RNG = np.random.default_rng(0)
_LENGTHS = np.array([1, 4, 10, 3, 7])


@dataclasses.dataclass(frozen=True)
class Part:
    """A model and a batch that it answers.

    Attributes:
        build: makes a new model.
        inputs: its inputs by name, [BATCH, …] each.
        outputs: the dtype of each output under the policy "mixed_bfloat16".
        has_padding: the answer must not depend on what stands at the padding: "token_ids" where "padding_mask" is False.
    """

    build: Callable[[], keras.Model]
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[str, ...] = ("bfloat16",)
    has_padding: bool = False


def _normal(*shape: int) -> np.ndarray:
    return _RNG.normal(size=(BATCH, *shape)).astype("float32")


TOKENS = {
    "token_ids": _RNG.integers(1, 20, (BATCH, 10), dtype="int32"),
    "padding_mask": np.arange(10) < _LENGTHS[:, np.newaxis],
}
FLAGS = {
    "image_present": np.array([True, True, False, True, False]),
    "title_present": np.array([True, False, True, True, False]),
}
VECTORS = {"image": _normal(6), "title": _normal(3)}
SEQUENCES = {"image": _normal(9, 6), "title": _normal(10, 3) * TOKENS["padding_mask"][..., np.newaxis].astype("float32")}
CLASSES = np.random.default_rng(1).normal(size=(3, 4))
_FUSED = {"fused": _normal(6)}
_PIXELS = {"image": _RNG.uniform(0, 255, (BATCH, 32, 32, 3)).astype("float32")}


def _word_vectors() -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.txt"
        path.write_text("".join(f"w{index} {index} {-index} 0.5\n" for index in range(0, 20, 2)), "utf-8")
        return build_word_vector_encoder(TEXT, str(path))


def _text(build: Callable[..., keras.Model], **options) -> Part:
    return Part(functools.partial(build, TEXT, **options), TOKENS, has_padding=True)


def _fusion(build: Callable[..., keras.Model], given: dict[str, np.ndarray], flags: bool = True, **options) -> Part:
    shapes = {name: array.shape[1:] for name, array in given.items()}
    return Part(functools.partial(build, shapes, **options), given | (FLAGS if flags else {}))


def _head(build: Callable[..., keras.Model], **options) -> Part:
    return Part(functools.partial(build, 6, 3, **options), _FUSED, ("float32",))


PARTS = {
    "small CNN": Part(functools.partial(build_small_cnn, ImageSpec((32, 32)), widths=(4, 4)), _PIXELS),
    "small text encoder": _text(build_small_text_encoder, width=6),
    "LSTM": _text(build_recurrent_encoder, cell="lstm", embedding_width=6, width=5),
    "two layers of GRU in both directions": _text(
        build_recurrent_encoder, cell="gru", embedding_width=6, width=5, num_layers=2, bidirectional=True, dropout=0.5
    ),
    "word vectors": Part(_word_vectors, TOKENS, has_padding=True),
    "lexical encoder": _text(build_lexical_encoder, buckets=8),
    "embedding encoder": Part(
        lambda: build_embedding_encoder(EmbeddedText("title", EmbedderSpec("nowhere", 4))), {"embedding": _normal(4)}
    ),
    "tuning DNN": Part(functools.partial(build_tuning_dnn, 6, (4, 3), name="title_tuning"), _FUSED),
    "concatenation": _fusion(build_concatenation, VECTORS, flags=False),
    "gated fusion": _fusion(build_gated_fusion, VECTORS, width=5),
    "bilinear fusion": _fusion(build_bilinear_fusion, VECTORS, width=5),
    "cross-attention of sequences": _fusion(build_cross_attention_fusion, SEQUENCES, width=8, num_heads=2, num_blocks=2),
    "cross-attention of vectors": _fusion(build_cross_attention_fusion, VECTORS, width=8, num_heads=2),
    "head": _head(build_head, hidden_units=(8,)),
    "per-label head": _head(build_per_label_head),
    "class-embedding head": _head(build_class_embedding_head, class_embeddings=CLASSES, width=5),
}
SLOW_PARTS = {  # too slow for each test, and tested by those of their own files
    "MobileNetV2": Part(
        functools.partial(build_image_tower, ImageSpec((32, 32)), "mobilenet_v2", None, freeze_fraction=1.0), _PIXELS
    )
}


def _around(make_layer: Callable[[], keras.Layer], *arrays: np.ndarray, outputs=("bfloat16",)) -> Part:
    """A model of one layer, whose inputs are named "input_0", "input_1", …"""
    given = {f"input_{index}": array for index, array in enumerate(arrays)}

    def build() -> keras.Model:
        inputs = {name: keras.Input(array.shape[1:], dtype=array.dtype.name, name=name) for name, array in given.items()}
        return keras.Model(inputs, make_layer()(*inputs.values()), name="of_one_layer")

    return Part(build, given, outputs)


def _vision_transformer() -> keras.Layer:
    return build_vision_transformer((32, 32, 3), "small_vit", "vit", patch=8, width=16, blocks=2, heads=2, mlp=32)


_STATES, _MASK = _normal(10, 4), TOKENS["padding_mask"]
_VOTING = np.stack([FLAGS["image_present"], FLAGS["title_present"]], axis=1)
_LOGITS = _normal(2, 3)


def _solved_answers() -> SolvedAnswers:
    """Two blocks and two flags; the answers are random but for the last one."""
    kernels, neighbours = [{"blocks": [0, 1], "gamma": 0.5}], [{"kernel": 0, "pull": 0.1}]
    answers = [
        {"linear": [0], "kernels": [], "neighbours": [0]},
        {"linear": [0, 1], "kernels": [0], "neighbours": []},
        {"linear": [], "kernels": [], "neighbours": []},
    ]
    layer = SolvedAnswers(3, [2, 3], kernels, 4, neighbours, False, answers, [2, 0, 2, 1], dtype="float32")
    layer.build((None, 7))
    layer.prior[0].assign([0.2, 0.3, 0.5])
    return layer


LAYERS = {  # by the names of the classes; all that are registered in mm_keras.model
    "MaskedMeanPooling": _around(MaskedMeanPooling, _STATES, _MASK),
    "MaskedMaxPooling": _around(MaskedMaxPooling, _STATES, _MASK),
    "ZeroPadding": _around(ZeroPadding, _STATES, _MASK),
    "MissingEmbedding": _around(MissingEmbedding, _STATES, FLAGS["title_present"]),
    "ModalityDropout": _around(lambda: ModalityDropout(0.25, seed=3), _VOTING, outputs=("bool",)),
    "BagOfTokens": _around(lambda: BagOfTokens(8), TOKENS["token_ids"], _MASK),
    "SplitInWindows": _around(lambda: SplitInWindows(10, 2, 2, 3), TOKENS["token_ids"], _MASK, outputs=("int32", "bool")),
    "MaskedSoftmax": _around(MaskedSoftmax, _LOGITS, _VOTING),
    "PerLabelDense": _around(lambda: PerLabelDense(3, 0.4), _FUSED["fused"]),
    "ClassSimilarity": _around(lambda: ClassSimilarity(3, 4, width=2), _normal(2)),
    "WeightedSum": _around(lambda: WeightedSum(True, np.array([[0.2], [0.8]])), _LOGITS, _VOTING, outputs=("float32",)),
    "MajorityVote": _around(lambda: MajorityVote(False, np.zeros((2, 3))), _LOGITS, _VOTING, outputs=("float32",)),
    "Stacking": _around(lambda: Stacking(False, np.ones((1, 3, 3)), [[True, True]]), _LOGITS, _VOTING, outputs=("float32",)),
    "UnitBlocks": _around(lambda: UnitBlocks([2, 4]), VECTORS["image"]),
    "WeightedBag": _around(lambda: WeightedBag(20, 8), TOKENS["token_ids"], _MASK),
    "SolvedAnswers": _around(_solved_answers, _normal(7), outputs=("float32",)),
    "VisionTransformer": _around(_vision_transformer, _PIXELS["image"]),
}


def as_input(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | np.ndarray:
    """The inputs as the model takes them: a model of one unnamed input takes an array."""
    return dict(inputs) if isinstance(model.input, dict) else next(iter(inputs.values()))


def outputs_of(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What a model answers outside training, as float32 arrays (NumPy has no bfloat16), or as they are where not of floats."""
    answers = []
    for answer in keras.tree.flatten(model(as_input(model, inputs), training=False)):
        is_float = "float" in keras.backend.standardize_dtype(answer.dtype)
        answers.append(np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(answer, "float32") if is_float else answer)))
    return answers


def check_saving(model: keras.Model, inputs: Mapping[str, np.ndarray], folder: Path) -> None:
    """Raises AssertionError unless the model has the same layers and answers the same after it was saved and loaded."""
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    assert loaded.to_json() == model.to_json()
    for after, before in zip(outputs_of(loaded, inputs), outputs_of(model, inputs), strict=True):
        np.testing.assert_array_equal(after, before)
