import functools
import gc
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from mm_keras.features import ImageSpec
from mm_keras.model.architectures import ARCHITECTURES
from mm_keras.model.image_tower import build_image_tower, build_small_cnn
from mm_keras.model.resnet import build_resnet
from mm_keras.model.vision_transformer import VisionTransformer, build_vision_transformer

REFERENCE = json.loads((Path(__file__).parent / "torch_reference.json").read_text("utf-8"))
SMALL = ImageSpec((32, 32))
QUICK = {"mobilenet_v2"}
TINY = {  # entries of the table whose own builders are made to build less
    "resnext101_32x4d": functools.partial(
        build_resnet, blocks=(1, 2, 1, 1), groups=4, group_width=16, squeeze=True, widths=(16, 16, 32, 32)
    ),
    "resnet50": functools.partial(build_resnet, blocks=(1, 2, 1, 1), bottleneck=False, widths=(8, 8, 16, 16)),
    **{
        f"{kind}_base_16": functools.partial(
            build_vision_transformer, kind=kind, patch=16, width=32, blocks=2, heads=2, mlp=64, **options
        )
        for kind, options in {"clip": {"intermediate_activation": "quick_gelu"}, "siglip": {}, "vit": {}}.items()
    },
}


# The tiny ones; of the other transformers and the other ResNet, slow tests ask the same.
ONE_OF_A_KIND = [
    name if name in ("siglip_base_16", "resnet50") else pytest.param(name, marks=pytest.mark.slow) for name in sorted(TINY)
]
EACH = [pytest.param((name, True), id=f"tiny {name}") for name in sorted(TINY)]
EACH += [
    pytest.param((name, False), id=name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(ARCHITECTURES)
]


def _pictures(size, number=2):
    return np.random.default_rng(0).uniform(0, 255, (number, *size, 3)).astype("float32")


def _shrink(patch):
    for name, build in TINY.items():
        cuts = ("embedding", "block_0", "block_1") if build.func is build_vision_transformer else ("layer2_1_out",)
        patch.setitem(ARCHITECTURES, name, ARCHITECTURES[name]._replace(build=build, cuts=cuts, downloads=False))


@pytest.fixture
def tiny(monkeypatch):
    """Some architectures are tiny for as long as the test takes: those of TINY."""
    _shrink(monkeypatch)


@pytest.fixture(scope="module", params=EACH)
def tower(request):
    """Every architecture on small pictures, half of it frozen: (its name, its cuts, the tower)."""
    name, is_tiny = request.param
    with pytest.MonkeyPatch.context() as patch:
        if is_tiny:
            _shrink(patch)
        entry = ARCHITECTURES[name]
        size = -(-32 // entry.min_size) * entry.min_size
        tower = build_image_tower(ImageSpec((size, size)), name, weights=None)
    yield name, entry.cuts, tower
    del tower
    keras.backend.clear_session()
    gc.collect()  # the large ones are gigabytes


def _prepare_as_library(name, pictures):
    """What the library that the architecture comes from makes of pictures before its first convolution."""
    apps = keras.applications
    modules = {
        "inception_v3": apps.inception_v3,
        "mobilenet_v2": apps.mobilenet_v2,
        "resnet50": apps.resnet,
        "resnet50_v2": apps.resnet_v2,
        "resnet152_v2": apps.resnet_v2,
    }
    if name in modules:
        return modules[name].preprocess_input(pictures.copy())
    classes = {"efficientnet_v2_b0": apps.EfficientNetV2B0, "efficientnet_v2_s": apps.EfficientNetV2S}
    classes |= {"convnext_tiny": apps.ConvNeXtTiny, "convnext_base": apps.ConvNeXtBase}
    if name in classes:  # these prepare pictures in the model
        library = classes[name](include_top=False, weights=None, input_shape=pictures.shape[1:])
        x = pictures
        for layer in library.layers[1:3]:
            x = layer(x) if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization) else x
        assert x is not pictures
        return x
    if "res" in name:
        return keras.applications.imagenet_utils.preprocess_input(pictures.copy(), mode="torch")
    reference = REFERENCE[name.partition("_")[0]]
    return np.broadcast_to(reference["pixels"], pictures.shape)


def test_tower_prepares_pixels_as_its_library_does(tower):
    name, _, tower = tower
    # The red, green and blue that the reference's pixels were made of.
    pictures = np.broadcast_to(np.float32([10, 128, 250]), (1, *tower.input.shape[1:]))
    prepared = keras.Model(tower.input, tower.get_layer("rescale").output)(pictures)
    np.testing.assert_allclose(prepared, _prepare_as_library(name, pictures), rtol=1e-4, atol=1e-4)


def test_tower_is_its_backbone_on_prepared_pixels_pooled(tower):
    name, _, tower = tower
    pictures = _pictures(tower.input.shape[1:3])
    prepared = keras.Model(tower.input, tower.get_layer("rescale").output)(pictures)
    features = np.asarray(tower.get_layer(name)(prepared, training=False))
    embedding = features.mean(axis=(1, 2)) if features.ndim == 4 else features
    assert embedding.shape == (2, tower.output.shape[-1])
    np.testing.assert_allclose(tower(pictures, training=False), embedding, rtol=1e-4, atol=1e-5 * np.abs(embedding).max())


def test_tower_saved_and_loaded_is_the_same(tower, tmp_path):
    _, _, tower = tower
    pictures = _pictures(tower.input.shape[1:3])
    tower.save(tmp_path / "tower.keras")
    loaded = keras.models.load_model(tmp_path / "tower.keras")
    np.testing.assert_allclose(loaded(pictures), tower(pictures), rtol=1e-5, atol=1e-6)
    shapes = [[weight.shape for weight in each.trainable_weights] for each in (loaded, tower)]
    assert shapes[0] == shapes[1]
    assert 0 < len(shapes[0]) < len(tower.weights)


def test_tower_can_be_cut_in_two_at_each_of_its_cuts(tower):
    name, cuts, tower = tower
    backbone = tower.get_layer(name)
    if isinstance(backbone, VisionTransformer):
        assert tuple(backbone.parts) == (*cuts, "norm")
        return
    pictures = np.random.default_rng(0).normal(size=(1, *tower.input.shape[1:])).astype("float32")
    whole = np.asarray(backbone(pictures))
    places = [backbone.layers.index(backbone.get_layer(cut)) for cut in cuts]
    assert places == sorted(places)
    for cut in cuts:
        middle = backbone.get_layer(cut).output
        if middle is not backbone.output:
            halves = keras.Model(backbone.input, middle), keras.Model(middle, backbone.output)
            np.testing.assert_allclose(halves[1](halves[0](pictures)), whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())
            assert len(halves[0].weights) + len(halves[1].weights) == len(backbone.weights)


def test_tower_takes_pictures_of_its_size_alone():
    tower = build_image_tower(ImageSpec((32, 48)), "mobilenet_v2", weights=None)
    assert (tower.name, tower.input.name) == ("image_tower", "image")
    assert tower.input.shape == (None, 32, 48, 3)
    assert tower.output.shape == (None, 1280)
    assert tower(_pictures((32, 48), number=1)).shape == (1, 1280)


@pytest.fixture(scope="module")
def count_trainable():
    """A function: freeze_fraction -> the numbers of trainable and of expected trainable weights."""

    def count(fraction):
        with pytest.MonkeyPatch.context() as patch:
            _shrink(patch)
            tower = build_image_tower(SMALL, "resnet50", None, fraction)
            layers = ARCHITECTURES["resnet50"].build(input_shape=(*SMALL.size, 3), name="resnet50").layers
        trained = layers[round(fraction * len(layers)) :]
        return len(tower.trainable_weights), sum(len(layer.trainable_weights) for layer in trained)

    return count


def test_freezing_freezes_the_first_layers(count_trainable):
    none, half, all_of_it = (count_trainable(fraction) for fraction in (0, 0.5, 1))
    assert none[0] == none[1]
    assert half[0] == half[1]
    assert all_of_it == (0, 0)
    assert 0 < half[0] < none[0]


def test_half_is_frozen_unless_said_otherwise(tiny, count_trainable):
    assert len(build_image_tower(SMALL, "resnet50", None).trainable_weights) == count_trainable(0.5)[0]


def test_tower_is_frozen_up_to_a_cut(tiny):
    tower = build_image_tower(SMALL, "mobilenet_v2", None, freeze_up_to="block_5_add")
    layers = [layer for layer in tower.get_layer("mobilenet_v2").layers if layer.weights or layer.name == "block_5_add"]
    index = [layer.name for layer in layers].index("block_5_add")
    assert [layer.trainable for layer in layers] == [False] * (index + 1) + [True] * (len(layers) - index - 1)
    counts = {}
    for cut in ("embedding", "block_0", "block_1"):
        tower = build_image_tower(SMALL, "vit_base_16", None, freeze_up_to=cut)
        counts[cut] = len(tower.trainable_weights)
    assert counts == {"embedding": 2 * 16 + 2, "block_0": 16 + 2, "block_1": 2}


def test_training_moves_no_frozen_weight_and_no_frozen_statistic(tiny):
    tower = build_image_tower(SMALL, "resnet50_v2", None, 0.5)  # whose normalisations stand before convolutions, too
    layers = tower.get_layer("resnet50_v2").layers
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = {norm.name: np.asarray(norm.moving_mean).copy() for norm in norms}
    frozen = [(weight, np.asarray(weight).copy()) for layer in layers if not layer.trainable for weight in layer.weights]
    model = keras.Sequential([tower, keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(_pictures(SMALL.size, 4), np.zeros((4, 1)))
    for norm in norms:
        assert norm.trainable != np.array_equal(norm.moving_mean, before[norm.name])
    assert {norm.trainable for norm in norms} == {True, False}
    assert all(np.array_equal(weight, old) for weight, old in frozen)


def test_frozen_normalisations_are_within_the_convolutions(tiny):
    def norms(fraction):
        layers = build_image_tower(SMALL, "mobilenet_v2", None, fraction).get_layer("mobilenet_v2").layers
        return [layer.trainable for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]

    assert all(norms(0))
    assert 0 < len(norms(0.5)) < len(norms(0))
    assert norms(1) == []


@pytest.mark.parametrize(
    "architecture",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenet_v2", "efficientnet_v2_b0")), *sorted(TINY)],
)
def test_frozen_tower_sees_the_same_in_training(tiny, architecture):
    tower = build_image_tower(SMALL, architecture, None, 1)
    pictures = _pictures(SMALL.size)
    assert tower.trainable_weights == []
    np.testing.assert_array_equal(tower(pictures, training=True), tower(pictures, training=False))


@pytest.mark.parametrize("architecture", [pytest.param("mobilenet_v2", marks=pytest.mark.slow), *ONE_OF_A_KIND])
def test_tower_builds_in_mixed_precision(tiny, architecture, tmp_path):
    exact = build_image_tower(SMALL, architecture, None, 1)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        tower = build_image_tower(SMALL, architecture, None, 1)
        tower.set_weights(exact.get_weights())
        tower.save(tmp_path / "tower.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    pictures = _pictures(SMALL.size)
    found, expected = np.asarray(tower(pictures)).astype("float32"), np.asarray(exact(pictures))
    assert tower.output.dtype == "bfloat16"
    prepared = [keras.Model(each.input, each.get_layer("rescale").output)(pictures) for each in (tower, exact)]
    np.testing.assert_array_equal(*prepared)
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())
    np.testing.assert_array_equal(
        np.asarray(keras.models.load_model(tmp_path / "tower.keras")(pictures)).astype("float32"), found
    )


@pytest.mark.parametrize("architecture", ONE_OF_A_KIND)
def test_trainable_part_learns(tiny, architecture):
    cut = ARCHITECTURES[architecture].cuts[-1]
    tower = build_image_tower(SMALL, architecture, None, freeze_up_to=cut)
    before = [np.asarray(weight) for weight in tower.weights]
    trainable = {id(weight) for weight in tower.trainable_weights}
    model = keras.Sequential([tower, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.train_on_batch(_pictures(SMALL.size, 4), np.float32([[0], [1], [2], [3]]))
    moved = {id(weight): not np.array_equal(weight, old) for weight, old in zip(tower.weights, before, strict=True)}
    assert any(moved[key] for key in trainable)
    norms = "moving_mean", "moving_variance"
    for weight in tower.weights:
        assert id(weight) in trainable or weight.name in norms or not moved[id(weight)], weight.path


def test_unknown_architecture_is_an_error():
    with pytest.raises(ValueError, match=r"\['clip_base_16', .*'vit_large_16'\]. Received: 'vgg16'"):
        build_image_tower(SMALL, "vgg16", None)


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_fraction_out_of_range_is_an_error(fraction):
    with pytest.raises(ValueError, match=rf"within \[0, 1\]. Received: {fraction}"):
        build_image_tower(SMALL, "mobilenet_v2", None, fraction)


def test_freezing_in_two_ways_is_an_error():
    with pytest.raises(ValueError, match=r"freeze_fraction or freeze_up_to. Received: 0.5 and 'block_2_add'"):
        build_image_tower(SMALL, "mobilenet_v2", None, 0.5, "block_2_add")


def test_layer_that_is_no_cut_is_an_error_that_lists_the_cuts():
    with pytest.raises(ValueError, match=r"mobilenet_v2 may be frozen up to \['block_2_add', .*Received: .*='block_2_expand'"):
        build_image_tower(SMALL, "mobilenet_v2", None, freeze_up_to="block_2_expand")


def test_image_that_is_too_small_is_an_error():
    with pytest.raises(ValueError, match=r"inception_v3 needs images of at least 75 pixels a side. Received: \(80, 74\)"):
        build_image_tower(ImageSpec((80, 74)), "inception_v3", None)


def test_weights_that_keras_does_not_have_are_an_error():
    with pytest.raises(ValueError, match=r"Keras has no ImageNet weights of resnet34 to download: give weights=<file"):
        build_image_tower(SMALL, "resnet34")
    with pytest.raises(ValueError, match=r"weights_sha256 is of a weights file. Received: weights=None"):
        build_image_tower(SMALL, "resnet34", None, weights_sha256="00" * 32)


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit"])
def test_folder_whose_pictures_are_prepared_otherwise_is_an_error(tiny, tmp_path, kind):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(REFERENCE[kind]["preprocessor"]))
    with pytest.raises(ValueError, match=r"holds no weights"):  # the pixels are right, so it goes on
        build_image_tower(SMALL, f"{kind}_base_16", str(tmp_path))
    path.write_text(json.dumps({"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}))
    with pytest.raises(
        ValueError, match=r"preprocessor_config.json standardises pixels by mean \[0.485, .* of another architecture"
    ):
        build_image_tower(SMALL, f"{kind}_base_16", str(tmp_path))


@pytest.mark.parametrize("size", [(32, 32), (30, 45)])
def test_small_cnn_learns_from_pixels_of_any_size(size):
    tower = build_small_cnn(ImageSpec(size), widths=(4, 6))
    assert (tower.name, tower.output.shape) == ("image_tower", (None, 6))
    assert tower.trainable_weights
    np.testing.assert_allclose(tower.get_layer("rescale")(np.float32([0, 127.5, 255])), [-1, 0, 1], atol=1e-6)
    assert np.isfinite(tower(_pictures(size, number=1))).all()


def test_small_cnn_too_deep_for_its_pictures_is_an_error():
    with pytest.raises(ValueError, match=r"6 blocks need images of at least 64 pixels a side\. Received: \(63, 80\)"):
        build_small_cnn(ImageSpec((63, 80)), widths=(4,) * 6)
