"""Sizes and forward speeds of the text encoders, with random weights. One JSON line an encoder and length.

    python bench/text_encoders.py [ENCODER ...]

Each encoder has the sizes of its published "base" model (or the defaults of its builder) and sees batches of texts of 32 and of
128 tokens, in graph mode; the best of several rounds counts. On a machine that does other work too, texts per CPU second (of
all threads) say more than texts per second. Without arguments all of them are measured, each in a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable

import keras
import keras_hub
import numpy as np
from measure import best_times, report

from mm_keras.features import TextSpec, TokenizerSpec, TokenText
from mm_keras.model.layers import MaskedMeanPooling
from mm_keras.model.text_encoder import build_recurrent_encoder, build_small_text_encoder, token_inputs
from mm_keras.model.transformer_encoder import build_transformer_encoder

_BASE = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072}
_MINILM = {"num_layers": 6, "num_heads": 12, "hidden_dim": 384, "intermediate_dim": 1536}
_models = keras_hub.models
# name -> (size of the vocabulary, what builds a random backbone, longest text)
TRANSFORMERS: dict[str, tuple[int, Callable[[int], keras.Model], int]] = {
    "BERT base": (30_522, lambda n: _models.BertBackbone(vocabulary_size=n, **_BASE), 512),
    "MiniLM, 6 layers": (30_522, lambda n: _models.BertBackbone(vocabulary_size=n, **_MINILM), 512),
    "DistilBERT": (30_522, lambda n: _models.DistilBertBackbone(vocabulary_size=n, **_BASE | {"num_layers": 6}), 512),
    "RoBERTa base": (50_265, lambda n: _models.RobertaBackbone(vocabulary_size=n, **_BASE), 512),
    "XLM-R base": (250_002, lambda n: _models.XLMRobertaBackbone(vocabulary_size=n, **_BASE), 512),
    "ALBERT base": (30_000, lambda n: _models.AlbertBackbone(vocabulary_size=n, embedding_dim=128, **_BASE), 512),
    "DeBERTa-v3 base": (128_100, lambda n: _models.DebertaV3Backbone(vocabulary_size=n, **_BASE), 512),
    "CLIP text, base": (
        49_408,
        lambda n: _models.CLIPTextEncoder(n, 512, 512, num_layers=12, num_heads=8, intermediate_dim=2048),
        77,
    ),
    "SigLIP text, base": (
        32_000,
        lambda n: _models.SigLIPTextEncoder(n, 768, 768, num_layers=12, num_heads=12, intermediate_dim=3072),
        64,
    ),
}
WORDS = 30_000
LEARNED = {
    "small": build_small_text_encoder,
    "LSTM": build_recurrent_encoder,
    "word vectors of 300": lambda spec: _averaged(spec, 300),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoders", nargs="*", help=f"of {', '.join([*TRANSFORMERS, *LEARNED])} (default: all)")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    known = [*TRANSFORMERS, *LEARNED]
    unknown = [name for name in options.encoders if name not in known]
    if unknown:
        parser.error(f"no encoder {unknown[0]!r}; there are {known}")
    names = options.encoders or known
    if len(names) == 1:
        measure(names[0], options.batch_size, options.rounds)
        return
    for name in names:  # memory that one took is not there for the next
        command = [sys.executable, __file__, name, f"--batch_size={options.batch_size}", f"--rounds={options.rounds}"]
        subprocess.run(command, check=True)


def measure(name: str, batch_size: int, rounds: int) -> None:
    longest = TRANSFORMERS[name][2] if name in TRANSFORMERS else 128
    for length in dict.fromkeys(min(length, longest) for length in (32, 128)):
        encoder, vocabulary = _build(name, length)
        batch = {
            "token_ids": np.random.default_rng(0).integers(5, vocabulary, (batch_size, length), dtype="int32"),
            "padding_mask": np.ones((batch_size, length), bool),
        }
        seconds, cpu_seconds = best_times(functools.partial(encoder.predict_on_batch, batch), rounds)
        report(
            "text_encoders",
            name,
            parameters=encoder.count_params(),
            tokens=length,
            embedding=encoder.output.shape[-1],
            texts_per_second=round(batch_size / seconds, 1),
            texts_per_cpu_second=round(batch_size / cpu_seconds, 1),
            batch_size=batch_size,
            backend=keras.backend.backend(),
        )


def _build(name: str, length: int) -> tuple[keras.Model, int]:
    if name in LEARNED:
        spec = TokenText("title", TokenizerSpec("words", tuple(map(str, range(WORDS)))), length)
        return LEARNED[name](spec), WORDS
    vocabulary, build, _ = TRANSFORMERS[name]
    tokenizer = TokenizerSpec("wordpiece", tuple(map(str, range(vocabulary))), family="BertTokenizer", start_id=1, end_id=2)
    with tempfile.TemporaryDirectory() as preset:  # as users give them
        build(vocabulary).save_to_preset(preset)
        pooling = "native" if name.startswith("SigLIP") else "mean"
        return build_transformer_encoder(TokenText("title", tokenizer, length), preset, pooling), vocabulary


def _averaged(spec: TextSpec, width: int) -> keras.Model:
    """`build_word_vector_encoder` without a file of vectors."""
    inputs = token_inputs(spec)
    vectors = keras.layers.Embedding(len(spec.tokenizer.vocabulary), width)(inputs["token_ids"])
    return keras.Model(inputs, MaskedMeanPooling()(vectors, inputs["padding_mask"]))


if __name__ == "__main__":
    main()
