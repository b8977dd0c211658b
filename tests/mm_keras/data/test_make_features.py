import pytest

from mm_keras.data.make_features import make_features
from mm_keras.features import ImageSpec, TokenizerSpec
from tfrecords_tools.sources.example import SourceExample


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pack_examples):
    """Words of the training split, and others of the test split; `class_description` is derived from the label."""
    texts = [("oak oak mug", "train"), ("mug oak lamp lamp lamp lamp", "train"), ("clock clock clock", "test")]
    examples = [
        SourceExample(
            f"e{index}",
            f"rows:{index}",
            texts={"title": [text], "about": ["tall tall"], "class_description": ["told"]},
            labels=["ab"[index % 2]],
            split=split,
        )
        for index, (text, split) in enumerate(texts)
    ]
    fields = {"title": False, "about": False, "class_description": True}
    return pack_examples(tmp_path_factory.mktemp("features") / "rows", examples, fields)


def test_vocabulary_comes_from_the_training_split_alone(folder):
    (text,) = make_features(folder, image_size=None, text_fields=("title",)).texts
    assert text.tokenizer == TokenizerSpec("words", ("[PAD]", "[UNK]", "lamp", "oak", "mug"))


def test_train_split_may_have_another_name(folder):
    (text,) = make_features(folder, image_size=None, text_fields=("title",), train_split="test").texts
    assert text.tokenizer.vocabulary[2:] == ("clock",)


def test_all_fields_share_a_tokenizer_of_all_their_words(folder):
    title, about = make_features(folder, image_size=None, text_fields=("title", "about"), max_tokens=9).texts
    assert title.tokenizer is about.tokenizer
    assert set(about.tokenizer.vocabulary[2:]) == {"lamp", "oak", "mug", "tall"}
    assert (title.max_tokens, about.max_tokens) == (9, 9)


def test_spec_says_what_was_asked_for(folder):
    made = make_features(folder, (24, 32), "stretch", ("about", "title"), {"title": 5, "about": 7})
    assert made.image == ImageSpec((24, 32), "stretch")
    assert [(text.field, text.max_tokens) for text in made.texts] == [("about", 7), ("title", 5)]
    assert made.labels == ("a", "b")
    assert not made.multi_label


def test_image_alone_needs_no_tokenizer(folder):
    assert make_features(folder).modalities == ("image",)


def test_text_that_tells_the_label_is_an_error_unless_it_is_allowed(folder):
    with pytest.raises(ValueError, match=r"'class_description' is derived from the label.*allow_label_derived_inputs = True"):
        make_features(folder, text_fields=("title", "class_description"))
    made = make_features(folder, text_fields=("class_description",), allow_label_derived_inputs=True)
    assert made.modalities == ("image", "class_description")


def test_unknown_field_is_an_error(folder):
    with pytest.raises(ValueError, match=r"no text field 'titel'; it has \['about', 'class_description', 'title'\]"):
        make_features(folder, text_fields=("titel",))


@pytest.mark.parametrize("max_tokens", [{"title": 5}, {"title": 5, "about": 5, "tags": 5}])
def test_lengths_that_do_not_name_the_fields_are_an_error(folder, max_tokens):
    with pytest.raises(ValueError, match=r"max_tokens names the fields \['.*title'.*\], text_fields \['about', 'title'\]"):
        make_features(folder, text_fields=("title", "about"), max_tokens=max_tokens)


def test_nothing_to_see_is_an_error(folder):
    with pytest.raises(ValueError, match="a model needs an image, a text field, or both"):
        make_features(folder, image_size=None)
