import dataclasses

import pytest

from mm_keras.features import EmbedderSpec, FeatureSpec, ImageSpec, make_saved_model_text
from mm_keras.runs.late_fusion.merge_features import merge_features


def _embedded(path, fields, trainable=False):
    embedder = EmbedderSpec(str(path), 8, trainable)
    texts = tuple(make_saved_model_text(field, embedder) for field in fields)
    return FeatureSpec(None, texts, ("a", "b"), False)


def test_all_that_any_run_sees_is_seen(make_spec):
    whole = make_spec(fields=("title", "description"))
    assert merge_features({"a": whole.only(["image"]), "b": whole.only(["description"]), "c": whole.only(["title"])}) == (
        dataclasses.replace(whole, texts=whole.texts[::-1])
    )
    assert merge_features({"a": whole.only(["title"]), "b": whole}) == whole


def test_labels_must_be_equal(make_spec):
    first = make_spec(num_labels=3)
    for other, message in (
        (make_spec(num_labels=4), r"runs/a has 3 labels, runs/b has 4: fuse runs of one dataset"),
        (dataclasses.replace(first, labels=("label 0", "x", "label 2")), r"has 'label 1' as label 1, runs/b has 'x'"),
        (dataclasses.replace(first, multi_label=True), r"runs/a is multi-class, runs/b is multi-label"),
    ):
        with pytest.raises(ValueError, match=message):
            merge_features({"runs/a": first, "runs/b": other})


def test_shared_modality_must_be_seen_alike(make_spec):
    first = make_spec()
    tokenizer = first.texts[0].tokenizer
    other_words = dataclasses.replace(tokenizer, vocabulary=(*tokenizer.vocabulary, "new"))
    same_length = dataclasses.replace(tokenizer, vocabulary=tokenizer.vocabulary[::-1])
    for other, message in (
        (make_spec(image=(24, 16)), r"a sees 'image' as 16x16 pixels \(stretch\), b as 24x16"),
        (dataclasses.replace(first, image=ImageSpec((16, 16), "crop")), r"\(stretch\), b as 16x16 pixels \(crop\)"),
        (make_spec(tokenizer=other_words), r"a sees 'title' as 6 tokens of 7 \(words\), b as 6 tokens of 8 \(words\)"),
        (make_spec(tokenizer=same_length), r"'title' as 6 tokens of 7 \(words\), b as another of that kind"),
        (make_spec(max_tokens=9), r"b as 9 tokens of 7 \(words\); .*the same settings of make_features.*train\.modalities"),
    ):
        with pytest.raises(ValueError, match=message):
            merge_features({"a": first, "b": other})


def test_copies_of_one_saved_model_are_one(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "variables" / "data").write_bytes(content)
    merged = merge_features(
        {"a": _embedded(tmp_path / "a", ["title"]), "b": _embedded(tmp_path / "b", ["title", "description"])}
    )
    assert {text.field: text.embedder.path for text in merged.texts} == dict.fromkeys(
        ("title", "description"), str(tmp_path / "a")
    )
    with pytest.raises(ValueError, match=r"'title' as 8 numbers of a SavedModel, c as another of that kind"):
        merge_features({"a": _embedded(tmp_path / "a", ["title"]), "c": _embedded(tmp_path / "c", ["title"])})


def test_saved_models_that_were_trained_may_differ(tmp_path):
    first, second = (_embedded(tmp_path / name, ["title"], trainable=True) for name in "ab")
    assert merge_features({"a": first, "b": second}) == first
