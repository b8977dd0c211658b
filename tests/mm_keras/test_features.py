import json

import pytest

from mm_keras.caption_words import CaptionWords, build_vocabulary
from mm_keras.features import EmbedderSpec, FeatureSpec, ImageSpec, TokenizerSpec, TokenText, make_saved_model_text, present

WORDS = TokenizerSpec("words", ("[PAD]", "[UNK]", "mug", "größe", "茶"))
PIECES = TokenizerSpec("wordpiece", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "##s"), lowercase=False, strip_accents=True)
TABLE = build_vocabulary(["two dogs", "a dog's größe"], CaptionWords(strip_punctuation=False), min_count=1)
STEMS = TokenizerSpec("captions", TABLE.words, captions=TABLE)


def _spec(**changes):
    fields = {
        "image": ImageSpec((24, 32)),
        "texts": (TokenText("title", WORDS, 5), TokenText("title_2", PIECES, 7)),
        "labels": ("a", "b"),
        "multi_label": False,
    }
    return FeatureSpec(**(fields | changes))


def test_inputs_are_those_of_the_batch_contract():
    assert _spec().inputs() == {
        "image": ((24, 32, 3), "float32"),
        "title_token_ids": ((5,), "int32"),
        "title_padding_mask": ((5,), "bool"),
        "title_2_token_ids": ((7,), "int32"),
        "title_2_padding_mask": ((7,), "bool"),
        "image_present": ((), "bool"),
        "title_present": ((), "bool"),
        "title_2_present": ((), "bool"),
    }


def test_modalities_are_the_image_then_the_fields():
    assert _spec().modalities == ("image", "title", "title_2")
    assert _spec(image=None).modalities == ("title", "title_2")
    assert _spec(texts=()).modalities == ("image",)
    assert present("title") == "title_present"


@pytest.mark.parametrize("changes", [{}, {"image": None}, {"texts": ()}, {"multi_label": True, "labels": ("ä", 'b"c', "d")}])
def test_saved_spec_loads_as_it_was(tmp_path, changes):
    _spec(**changes).save(tmp_path)
    assert FeatureSpec.load(tmp_path) == _spec(**changes)


def test_saved_caption_table_loads_as_it_was(tmp_path):
    spec = _spec(texts=(TokenText("title", WORDS, 5), TokenText("caption", STEMS, 7)))
    spec.save(tmp_path)
    assert FeatureSpec.load(tmp_path) == spec
    assert sorted(path.name for path in tmp_path.glob("vocabulary_*")) == [
        f"vocabulary_{n}" for n in ("0.txt", "1.json", "1.txt")
    ]


def test_fields_with_one_tokenizer_share_its_vocabulary_file(tmp_path):
    _spec(texts=(TokenText("title", WORDS, 5), TokenText("body", WORDS, 9))).save(tmp_path)
    assert [path.name for path in tmp_path.glob("vocabulary_*")] == ["vocabulary_0.txt"]
    assert (tmp_path / "vocabulary_0.txt").read_text("utf-8") == "[PAD]\n[UNK]\nmug\ngröße\n茶\n"


def test_only_keeps_some_modalities():
    assert _spec().only(["title_2"]).modalities == ("title_2",)
    assert _spec().only(["image"]).texts == ()
    assert _spec().only(_spec().modalities) == _spec()


def test_only_of_an_unknown_modality_is_an_error():
    with pytest.raises(ValueError, match=r"no input 'titel'; its inputs are \['image', 'title', 'title_2'\]"):
        _spec().only(["titel"])


def test_only_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="a model needs an image, a text field, or both"):
        _spec().only([])


def test_sizes_out_of_range_are_errors():
    with pytest.raises(ValueError, match=r"at least 8 pixels each\. Received: \(7, 32\)"):
        ImageSpec((7, 32))
    with pytest.raises(ValueError, match=r"\(height, width\).*Received: \(32,\)"):
        ImageSpec((32,))
    with pytest.raises(ValueError, match=r"max_tokens of field 'title' must be at least 3. Received: 2"):
        TokenText("title", WORDS, 2)


def test_unknown_fit_is_an_error():
    with pytest.raises(ValueError, match=r"'crop' or 'stretch'. Received: 'pad'"):
        ImageSpec((32, 32), "pad")


def test_one_label_is_an_error():
    with pytest.raises(ValueError, match=r"at least two labels. Received: \('a',\)"):
        _spec(labels=("a",))


def test_loading_from_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name}' is no run folder"):
        FeatureSpec.load(tmp_path)


def test_features_of_another_version_are_refused(tmp_path):
    path = tmp_path / "features.json"
    for version, received in (('"version": 2', "2"), ('"older": true', "None")):
        _spec().save(tmp_path)
        path.write_text(path.read_text("utf-8").replace('"version": 1', version), "utf-8")
        with pytest.raises(ValueError, match=rf"features\.json is of version {received}, this release reads version 1: train"):
            FeatureSpec.load(tmp_path)


def test_saved_text_fields_say_their_kind(tmp_path):
    embedders = EmbedderSpec("nowhere", 8), EmbedderSpec("nowhere", 8, trainable=True)
    texts = (TokenText("title", WORDS, 5), *map(make_saved_model_text, ("about", "story"), embedders))
    _spec(texts=texts).save(tmp_path, with_models=False)
    kinds = {entry["field"]: entry["kind"] for entry in json.loads((tmp_path / "features.json").read_text("utf-8"))["texts"]}
    assert kinds == {"title": "tokens", "about": "embedding", "story": "string"}
    loaded = FeatureSpec.load(tmp_path)
    assert [type(text) for text in loaded.texts] == [type(text) for text in texts]
    assert loaded.inputs() == _spec(texts=texts).inputs()
