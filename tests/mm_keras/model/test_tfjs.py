import json

import numpy as np
import pytest

from mm_keras.model.tfjs import read_tfjs_layers

KERNEL = np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4)


@pytest.fixture
def write_folder(tmp_path):
    """A function: (entries, bytes) -> a folder with a model.json and three shards."""

    def write(entries, content, **changes):
        folder = tmp_path / "model"
        folder.mkdir()
        third = len(content) // 3 + 1
        names = [f"group1-shard{index + 1}of3.bin" for index in range(3)]
        for index, name in enumerate(names):
            (folder / name).write_bytes(content[index * third : (index + 1) * third])
        model = {"format": "layers-model", "weightsManifest": [{"paths": names, "weights": entries}]} | changes
        (folder / "model.json").write_text(json.dumps(model))
        return folder

    return write


def _entry(name="dense/kernel", shape=(3, 4), dtype="float32", quantization=None):
    return {"name": name, "shape": list(shape), "dtype": dtype} | ({"quantization": quantization} if quantization else {})


def test_weights_run_on_over_shards(write_folder):
    counts = np.arange(3, dtype="int32")
    entries = [_entry(), _entry("dense/bias", (4,)), _entry("counts", (3,), "int32"), _entry("scalar", ())]
    content = KERNEL.tobytes() + KERNEL[1].tobytes() + counts.tobytes() + np.float32(7).tobytes()
    found = read_tfjs_layers(write_folder(entries, content))
    assert list(found) == ["dense/kernel", "dense/bias", "counts", "scalar"]
    np.testing.assert_array_equal(found["dense/kernel"], KERNEL)
    np.testing.assert_array_equal(found["dense/bias"], KERNEL[1])
    np.testing.assert_array_equal(found["counts"], counts)
    assert found["scalar"] == 7


@pytest.mark.parametrize(("dtype", "steps"), [("uint8", 255), ("uint16", 65535)])
def test_quantised_weights_are_scaled_back(write_folder, dtype, steps):
    scale = 2 / steps
    stored = np.round((KERNEL + 1) / scale).astype(dtype)
    found = read_tfjs_layers(write_folder([_entry(quantization={"dtype": dtype, "scale": scale, "min": -1})], stored.tobytes()))
    assert found["dense/kernel"].dtype == np.float32
    np.testing.assert_allclose(found["dense/kernel"], KERNEL, atol=scale)
    np.testing.assert_array_equal(found["dense/kernel"].reshape(-1)[[0, -1]], [-1, 1])


def test_half_precision_weights_are_float32_again(write_folder):
    folder = write_folder(
        [_entry(quantization={"dtype": "float16", "original_dtype": "float32"})], KERNEL.astype("float16").tobytes()
    )
    found = read_tfjs_layers(folder)["dense/kernel"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, KERNEL.astype("float16"))


@pytest.mark.parametrize("changes", [{"format": "graph-model"}, {"weightsManifest": None}])
def test_graph_models_are_an_error(write_folder, changes):
    folder = write_folder([_entry()], KERNEL.tobytes(), **changes)
    if changes.get("weightsManifest", 0) is None:
        (folder / "model.json").write_text(json.dumps({"format": "layers-model"}))
    with pytest.raises(ValueError, match=r"model.json is no layers model of TensorFlow.js.*Received: '(graph|layers)-model'"):
        read_tfjs_layers(folder)


def test_broken_folders_are_errors(write_folder):
    folder = write_folder([_entry(), _entry("strings", (1,), "string")], KERNEL.tobytes() + b"1234")
    with pytest.raises(ValueError, match=r"weight strings is stored as 'string'; known are \['bool', 'float16'"):
        read_tfjs_layers(folder)
    path = folder / "model.json"
    model = json.loads(path.read_text())

    def change(entries, **group):
        path.write_text(json.dumps(model | {"weightsManifest": [model["weightsManifest"][0] | {"weights": entries} | group]}))

    change([_entry()])
    with pytest.raises(ValueError, match=r"model.json describes 48 bytes, but .* hold 52"):
        read_tfjs_layers(folder)
    change([_entry(), _entry("more", (2,))])
    with pytest.raises(ValueError, match=r"the shards end within weight more \(2,\)"):
        read_tfjs_layers(folder)
    change([_entry()], paths=["../secret.bin"])
    with pytest.raises(ValueError, match=r"names the shard '../secret.bin', which is not in its folder"):
        read_tfjs_layers(folder)
    change([_entry()], paths=["group1-shard4of4.bin"])
    with pytest.raises(ValueError, match=r"names the shard group1-shard4of4.bin, which is not there"):
        read_tfjs_layers(folder)
    path.write_text("<html>")
    with pytest.raises(ValueError, match=r"model.json is no JSON"):
        read_tfjs_layers(folder)
