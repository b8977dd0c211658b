import functools
import json

import numpy as np
import pytest

from mm_keras.data.augment import make_augmentation
from mm_keras.data.text import make_pretrained_tokenizer
from mm_keras.model.image_tower import build_image_tower, build_small_cnn
from mm_keras.model.text_encoder import build_small_text_encoder
from mm_keras.model.transformer_encoder import build_transformer_encoder
from mm_keras.runs.evaluate import evaluate
from mm_keras.training.cache_choice import choose_cached


def _build_frozen_text_encoder(spec, name):
    model = build_small_text_encoder(spec, width=8, name=name)
    model.trainable = False
    return model


def _build_half_frozen_cnn(spec):
    tower = build_small_cnn(spec, widths=(8, 8))
    for name in ("conv_0", "norm_0"):
        tower.get_layer(name).trainable = False
    return tower


@pytest.fixture
def build_half_frozen(build_small_model):
    return functools.partial(
        build_small_model,
        image_tower=_build_half_frozen_cnn,
        text_encoder=_build_frozen_text_encoder,
        modality_dropout=0.0,
    )


def test_tower_is_cut_if_it_is_asked_for_or_saves_time(make_spec, build_small_model, monkeypatch):
    features = make_spec((96, 96))
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    @functools.cache
    def build(freeze_fraction):
        tower = functools.partial(build_image_tower, architecture="mobilenet_v2", weights=None, freeze_fraction=freeze_fraction)
        return build_small_model(features, image_tower=tower, text_encoder=_build_frozen_text_encoder)

    def choose(cache_frozen, num_examples=1000, freeze_fraction=0.5):
        return choose_cached(build(freeze_fraction), features, False, cache_frozen, num_examples)

    assert choose(True) == ("image", "title")  # 9 KB a picture
    assert choose("towers") == ()
    assert choose(False) == ()
    assert choose(True, num_examples=10**8) == ()
    early = {"freeze_fraction": 0.03}  # one convolution makes 295 KB
    assert choose(True, **early) == ()
    assert choose("cut", **early) == ("image", "title")
    assert choose(True, freeze_fraction=1.0) == ("image", "title")
    with pytest.raises(ValueError, match="has none that can be cut off"):
        choose("cut", freeze_fraction=0.0)
    with pytest.raises(ValueError, match=r"cache_frozen is one of .* Received: 'tower'"):
        choose("tower")


@pytest.mark.parametrize("augment", [True, make_augmentation(token_dropout=0.1)])
def test_what_changes_from_epoch_to_epoch_is_not_cached(make_spec, build_half_frozen, augment):
    features = make_spec((16, 16))
    assert choose_cached(build_half_frozen(features), features, augment, "cut", 100) == ()


@pytest.mark.ci
def test_training_on_the_activations_at_a_cut_learns_what_training_on_pixels_does(
    dataset, tmp_path, train_small, build_half_frozen
):
    runs = {}
    options = {"build_model": build_half_frozen, "epochs": 4, "modalities": ("image", "title"), "val_split": None}
    for choice in ("cut", "towers"):
        model = train_small(dataset, tmp_path / choice, cache_frozen=choice, **options)
        runs[choice] = model, [json.loads(line) for line in (tmp_path / choice / "metrics.jsonl").read_text().splitlines()]
    (model, cut), (_, whole) = runs["cut"], runs["towers"]
    assert cut[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0.2)
    assert cut[-1]["loss"] < 0.98 * cut[0]["loss"]
    tower = model.get_layer("image_tower")
    assert not np.array_equal(tower.get_layer("norm_1").gamma, np.ones(8))
    np.testing.assert_array_equal(tower.get_layer("norm_0").gamma, np.ones(8))


@pytest.mark.ci
def test_last_layers_of_a_text_encoder_are_trained_on_the_states_before_them(
    dataset, tmp_path, tiny_bert, train_small, make_small_features, build_small_model
):
    """What the cached states are trained to is what the whole model then measures; the frozen layers stay as they were."""
    encoder = functools.partial(build_transformer_encoder, source=tiny_bert, freeze_up_to="transformer_layer_0")
    model = train_small(
        dataset,
        tmp_path / "run",
        make_features=functools.partial(
            make_small_features, make_tokenizer=functools.partial(make_pretrained_tokenizer, source=tiny_bert)
        ),
        build_model=functools.partial(build_small_model, text_encoder=encoder),
        modalities=("title", "description"),  # which share the encoder
    )
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    measured = evaluate(tmp_path / "run", split="val")["rows"][-1]
    assert measured["top_5"] == pytest.approx(line["val_top_5"], abs=0.04)  # states are kept in 16 bits
    trained = {w.path.split("/")[-3]: w for w in model.get_layer("text_encoder").trainable_weights}
    assert trained and all("transformer_layer_0" not in w.path for w in model.get_layer("text_encoder").trainable_weights)
