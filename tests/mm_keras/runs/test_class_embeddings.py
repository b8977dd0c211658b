import functools
import json
import shutil

import numpy as np
import pytest

from mm_keras.data.text import make_pretrained_tokenizer, make_word_tokenizer
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.runs.class_embeddings import ClassEncoder, embed_classes, report_equal
from mm_keras.tf_text_model.embedder import make_saved_model_embedder
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.sources.example import SourceExample

TEXTS = {"chair": "a chair of oak", "mug": "a mug of steel", "oven": "a steel oven"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pack_examples):
    """A dataset of three classes with their texts."""
    examples = [SourceExample(str(i), str(i), texts={"title": ["x"]}, labels=[sorted(TEXTS)[i % 3]]) for i in range(9)]
    folder = pack_examples(tmp_path_factory.mktemp("classes") / "data", examples)
    _write(f"{folder}/class_descriptions.jsonl", TEXTS)
    return folder


def _write(path, texts):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"label": label, "text": text}) + "\n" for label, text in texts.items())
    return str(path)


words = functools.partial(make_word_tokenizer, min_count=1)


@pytest.fixture(scope="module")
def bert(tiny_bert):
    """Arguments of `embed_classes`: the tiny BERT with its tokenizer."""
    return {
        "text_encoder": functools.partial(build_transformer_encoder, source=tiny_bert),
        "make_tokenizer": functools.partial(make_pretrained_tokenizer, source=tiny_bert),
        "max_tokens": 20,
    }


def test_classes_are_embedded_in_the_order_of_the_labels(folder, bert):
    classes = embed_classes(folder, **bert)
    names = DatasetInfo.load(folder).labels.names
    assert list(classes.texts) == names
    assert classes.values.shape == (3, 32)
    assert classes.values.dtype == np.float32
    for name, value in zip(names, classes.values, strict=True):
        np.testing.assert_allclose(value, classes.encoder([TEXTS[name]])[0], atol=1e-5)


def test_more_texts_than_fit_in_a_batch_are_embedded_alike(folder, bert):
    encoder = embed_classes(folder, **bert).encoder
    texts = ["oak", "steel mug", " steel mug\n", "the cafe"] * 20
    found = encoder(texts)
    assert found.shape == (80, 32)
    np.testing.assert_allclose(found[64:], found[:16], atol=1e-5)
    np.testing.assert_allclose(found[1], found[2], atol=1e-6)


@pytest.mark.parametrize("kind", ["words", "wordpiece", "SavedModel"])
def test_encoder_is_kept_with_its_tokenizer_and_its_texts(folder, bert, save_use, tmp_path, kind):
    source = save_use()
    use = {"make_embedder": functools.partial(make_saved_model_embedder, source, trainable=True)}
    classes = embed_classes(folder, **{"words": {"make_tokenizer": words}, "wordpiece": bert, "SavedModel": use}[kind])
    classes.save(tmp_path / "encoder")
    shutil.rmtree(source)
    loaded = ClassEncoder.load(tmp_path / "encoder")
    found = loaded([TEXTS[name] for name in classes.texts])
    np.testing.assert_allclose(found, classes.values, atol=1e-6)
    assert np.ptp(found, axis=0).max() > 0
    rows = map(json.loads, (tmp_path / "encoder" / "class_descriptions.jsonl").read_text("utf-8").splitlines())
    assert {row["label"]: row["text"] for row in rows} == TEXTS
    assert kind == "SavedModel" or loaded._encoder.trainable_weights == []


def test_names_are_texts_if_asked_for(folder):
    assert embed_classes(folder, texts=None, make_tokenizer=words).texts == {name: name for name in TEXTS}


def test_texts_come_from_any_file(folder, tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("label,description\nmug,one\nchair,two\noven,three\nsofa,four\n")
    assert embed_classes(folder, str(path), make_tokenizer=words).texts == {"chair": "two", "mug": "one", "oven": "three"}


def test_label_without_a_text_is_an_error_unless_its_name_may_stand_for_it(folder, tmp_path):
    path = _write(tmp_path / "few.jsonl", {"chair": "a chair", "mug": " "})
    message = r"has no text for 2 of 3 labels: \['mug', 'oven'\].*embed_classes\.names_for_missing = True"
    with pytest.raises(ValueError, match=message):
        embed_classes(folder, path, make_tokenizer=words)
    texts = embed_classes(folder, path, names_for_missing=True, make_tokenizer=words).texts
    assert texts == {"chair": "a chair", "mug": "mug", "oven": "oven"}


def test_missing_or_broken_file_is_an_error_that_names_it(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl does not exist.*Bind embed_classes\.texts"):
        embed_classes(folder, "none.jsonl")
    path = tmp_path / "bad.jsonl"
    path.write_text('{"label": "mug"}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl:1: expected label and text"):
        embed_classes(folder, str(path))


def test_classes_that_cannot_be_told_apart_are_named(capsys):
    values = np.float32([[1, 0], [0, 1], [1, 0], [1, 0]])
    report_equal(["Boat", "Dog", "Cat", "Hat"], values)
    assert "2 classes have the embedding of another and cannot be told from it: 'Cat' and 'Boat', 'Hat' and 'Boat'" in (
        capsys.readouterr().out
    )
    report_equal(["Boat", "Dog"], values[:2])
    assert capsys.readouterr().out == ""
