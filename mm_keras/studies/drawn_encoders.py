"""Text encoders with random weights in the formats of the published ones, so that every step is tried without a download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = tuple(chr(code) for code in range(ord("a"), ord("z") + 1))


def write_tiny_bert(folder: Path, words: Sequence[str] = (), positions: int = 24, width: int = 32) -> None:
    """Writes a Hugging Face folder of a BERT: 2 layers, 2 heads, with large random weights.

    Averaged over a text, its states still tell which words the text has.

    Args:
        folder: the folder to make.
        words: words that are tokens of their own; others are spelt.
        positions: the most tokens of a text.
        width: the width of the states.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    vocabulary = list(dict.fromkeys([*_SPECIAL, *words, *_LETTERS, *(f"##{letter}" for letter in _LETTERS[:-1])]))
    inner = 2 * width
    rng = np.random.default_rng(0)
    tensors = {}

    def add(name, *shape):
        tensors[name] = rng.normal(0, 0.3, shape).astype("float32")

    def add_norm(name):
        tensors[f"{name}.weight"] = np.ones(width, "float32")
        tensors[f"{name}.bias"] = np.zeros(width, "float32")

    def add_dense(name, out, into):
        add(f"{name}.weight", out, into)
        add(f"{name}.bias", out)

    add("embeddings.word_embeddings.weight", len(vocabulary), width)
    add("embeddings.position_embeddings.weight", positions, width)
    add("embeddings.token_type_embeddings.weight", 2, width)
    add_norm("embeddings.LayerNorm")
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            add_dense(f"{layer}.attention.{part}", width, width)
        add_norm(f"{layer}.attention.output.LayerNorm")
        add_dense(f"{layer}.intermediate.dense", inner, width)
        add_dense(f"{layer}.output.dense", width, inner)
        add_norm(f"{layer}.output.LayerNorm")
    add_dense("pooler.dense", width, width)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": len(vocabulary),
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": width,
        "intermediate_size": inner,
        "max_position_embeddings": positions,
        "hidden_dropout_prob": 0.1,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}), "utf-8"
    )
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), "utf-8")


def write_tiny_sentence_encoder(folder: Path, width: int = 64, buckets: int = 1024) -> None:
    """Writes a SavedModel as the Universal Sentence Encoder's, [B] texts -> [B, width]: means of random word vectors.

    Args:
        folder: the folder to make.
        width: the width of the vectors.
        buckets: how many vectors there are; words share them by hash.
    """
    import tensorflow as tf

    class Encoder(tf.Module):
        def __init__(self):
            super().__init__()
            self.table = tf.Variable(tf.random.stateless_normal([buckets, width], [0, 1]))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts):
            words = tf.strings.split(tf.strings.regex_replace(tf.strings.lower(texts), "[^a-z0-9]+", " "))
            ids = tf.strings.to_hash_bucket_fast(words, buckets)
            sums = tf.reduce_sum(tf.ragged.map_flat_values(lambda word_ids: tf.gather(self.table, word_ids), ids), axis=1)
            return tf.math.divide_no_nan(sums, tf.cast(ids.row_lengths(), "float32")[:, tf.newaxis])

    tf.saved_model.save(Encoder(), str(folder))
