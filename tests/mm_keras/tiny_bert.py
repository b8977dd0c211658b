"""A BERT so small that it is written in a moment."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def write_tiny_bert(folder: Path) -> None:
    """Writes a Hugging Face folder of a BERT: 2 layers, 2 heads, 32 wide, 24 positions, with large random weights."""
    folder.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["cafe", "oak", "mug", ",", "steel", "the", "##s"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *[f"##{letter}" for letter in letters[:-1]]]
    vocabulary = list(dict.fromkeys(vocabulary))
    width, inner, positions = 32, 64, 24
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
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
