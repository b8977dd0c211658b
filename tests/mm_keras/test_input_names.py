"""Columns may be called anything: each has a name inside of models and exports that every framework takes."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf

from mm_keras.data.feature_cache import FeatureCache
from mm_keras.data.pipeline import make_training_batches
from mm_keras.features import FeatureSpec
from mm_keras.input_names import input_name, safe_name
from mm_keras.model import fusion
from mm_keras.model.solved_head import build_blocks_fusion
from mm_keras.runs.serving import ServingModule
from mm_keras.tf_text_model.plain_path import plain_path
from tfrecords_tools.dataset.folder import Dataset
from tfrecords_tools.sources.example import SourceExample

# What a table's columns were found to be called, or might be.
COLUMNS = ("Review Text", "标题", "题标", "a/b", "a_b", "a.b", "2nd", "-x", "title", "Title", "TITLE", " title", "title:en")
COLUMNS += ("image", "labels", "text", "text/image", "text/text/image", "all texts", "the weights", "class", "self", "model")
COLUMNS += (
    "title_and",
    "title_hidden",
    "title_present",
    "gates",
    "image_tower",
    "title_tuning",
    "ünï",
    "x" * 300,
    "🦊",
    "a\nb",
)
HOSTILE = ("Review Text", "标题", "title", "Title", "image", "class", "the weights")
AUTOMATIC = ("add", "any", "cast", "concatenate", "expand_dims", "get_item", "logical_and", "multiply", "not_equal")  # by Keras
AUTOMATIC += ("ones_like", "reshape", "softmax", "stack", "sum", "where", "zeros_like")
FUSIONS = [getattr(fusion, name) for name in dir(fusion) if name.startswith("build_")] + [build_blocks_fusion]


@pytest.mark.parametrize("column", COLUMNS)
def test_safe_name_is_an_identifier_and_its_own_safe_name(column):
    name = safe_name(input_name(column))
    assert re.fullmatch("[a-z][a-z0-9_]{0,59}", name)
    assert safe_name(name) == name


def test_safe_names_of_different_columns_differ():
    names = {safe_name(input_name(column)) for column in COLUMNS}
    assert len(names | {"image"}) == len(COLUMNS) + 1


def test_usual_names_stay_as_they_are():
    for column in ("title", "class_description", "text", "labels", "caption_2", "image_tower"):
        assert safe_name(input_name(column)) == column


@pytest.mark.parametrize("build", FUSIONS, ids=lambda build: build.__name__)
def test_no_layer_of_a_fusion_is_called_as_a_modality_could_be(build):
    shapes = dict.fromkeys(("title", "body"), (8,))
    options = {"width": 8, "num_heads": 2} if build is fusion.build_cross_attention_fusion else {}
    for layer in build(shapes, **options).layers:
        assert layer.name in shapes or safe_name(layer.name) != layer.name or layer.name.startswith(AUTOMATIC), layer.name
    names = ("title", "Title", "标题", "title_hidden", "title_present")
    assert {tensor.name for tensor in build(dict.fromkeys(names, (8,)), **options).inputs} >= set(map(safe_name, names))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, pack_examples):
    folder = tmp_path_factory.mktemp("columns [1]*") / "ds"
    examples = [
        SourceExample(f"{n}", f"t:{n}", texts={field: [f"oak {field} {n}"] for field in HOSTILE}, labels=["ab"[n % 2]])
        for n in range(12)
    ]
    return Dataset.open(pack_examples(folder, examples, text_fields=HOSTILE))


@pytest.fixture(scope="module")
def features(dataset, make_spec) -> FeatureSpec:
    return dataclasses.replace(make_spec(image=None, fields=HOSTILE, max_tokens=3), labels=("a", "b"))


def test_batches_hold_the_texts_under_safe_names(dataset, features):
    split = dataset.split("train")
    cached = FeatureCache(split, features, {}, list(features.inputs()))
    for batches in (make_training_batches(split, features, 4, 1, augment=False), cached.training_batches(4, 1, 0)):
        inputs, _, _ = next(iter(batches.dataset))
        assert set(inputs) == set(features.inputs())
        for modality in features.modalities:
            assert np.all(inputs[f"{safe_name(modality)}_token_ids"].numpy()[:, 0] == 2)  # "oak"


def test_saved_features_list_both_names(features, tmp_path):
    features.save(tmp_path)
    text = (tmp_path / "features.json").read_text("utf-8")
    assert '"field": "Review Text",\n      "key": "review_text_42d93221"' in text
    assert FeatureSpec.load(tmp_path) == features
    (tmp_path / "features.json").write_text(text.replace("review_text_42d93221", "Review Text"), "utf-8")
    with pytest.raises(ValueError, match="text field 'Review Text' is 'Review Text' inside of the model, where this release"):
        FeatureSpec.load(tmp_path)


def test_people_use_the_names_of_columns(features, make_spec):
    assert features.modalities == tuple(map(input_name, HOSTILE))
    assert features.modality_of("Review Text") == "Review Text"
    assert features.modality_of("image") == "text/image"  # there is no picture that it could mean
    both = make_spec(fields=("image",))
    assert (both.modality_of("image"), both.modality_of("text/image")) == ("image", "text/image")
    assert features.only(["image", "标题"]).modalities == ("标题", "text/image")
    with pytest.raises(ValueError, match=r"the model has no input 'review_text'; its inputs are \['Review Text', '标题'"):
        features.modality_of("review_text")


def test_exported_model_takes_the_texts_by_safe_names_from_any_folder(features, build_small_model, tmp_path):
    folder = tmp_path / "[2024] runs*"
    folder.mkdir()
    module = ServingModule(build_small_model(features), features)
    tf.saved_model.save(module, str(plain_path(folder)), signatures=module.signature())
    served = tf.saved_model.load(str(plain_path(folder))).signatures["serving_default"]
    keys = [safe_name(modality) for modality in features.modalities]
    assert set(served.structured_input_signature[1]) == set(keys)
    texts = {key: tf.constant(["oak mug", ""]) for key in keys}
    assert served(**texts)["scores"].shape == (2, 2)
