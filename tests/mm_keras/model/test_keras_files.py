import h5py
import keras
import numpy as np
import pytest

from mm_keras.model.keras_files import keras_variables, load_keras_file, name_by_layer, read_keras2_file


def _network(*widths, name="net"):
    layers = [keras.layers.Dense(width, name=f"layer_{index}") for index, width in enumerate(widths)]
    return keras.Sequential([keras.Input((3,)), *layers], name=name)


def _write_keras2(path, arrays, whole_model):
    """A file as Keras 2 wrote it, of "layer/weight" -> array: of weights alone, or of a whole model."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        layers = {}
        for name in arrays:
            layers.setdefault(name.partition("/")[0], []).append(name)
        root.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, names in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                group[name] = arrays[name]


def test_weights_file_loads_into_the_same_network(tmp_path):
    saved, loaded = _network(4, 2), _network(4, 2)
    saved.save_weights(tmp_path / "net.weights.h5")
    load_keras_file(loaded, tmp_path / "net.weights.h5")
    for weight, expected in zip(loaded.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("widths", [(4,), (4, 2, 2), (5, 2)], ids=["fewer layers", "more layers", "another width"])
def test_file_of_another_network_is_refused_and_changes_nothing(tmp_path, widths):
    _network(4, 2).save_weights(tmp_path / "net.weights.h5")
    other = _network(*widths, name="other")
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"net\.weights\.h5 does not fit 'other'"):
        load_keras_file(other, tmp_path / "net.weights.h5")
    for weight, expected in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize(
    "read", [read_keras2_file, lambda path: load_keras_file(_network(2), path)], ids=["Keras 2", "Keras 3"]
)
def test_damaged_file_is_an_error_that_names_it(tmp_path, read):
    path = tmp_path / "cut.h5"
    path.write_bytes(b"\x89HDF")
    with pytest.raises(ValueError, match=r"cut\.h5 is no HDF5 file, or damaged"):
        read(path)


@pytest.mark.parametrize("whole_model", [False, True])
def test_keras2_file_is_read_by_layer_and_weight(tmp_path, whole_model):
    arrays = {
        "conv1/kernel:0": np.ones((1, 1, 3, 2), "float32"),
        "conv1/bias:0": np.arange(2.0),
        "fc/kernel:0": np.ones((2, 2)),
    }
    _write_keras2(tmp_path / "net.h5", arrays, whole_model)
    read = read_keras2_file(tmp_path / "net.h5")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


def test_weights_file_of_keras3_is_no_file_of_keras2(tmp_path):
    _network(2).save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(ValueError, match=r"no weights file of Keras 2; Keras 3's end in \.weights\.h5\. It holds \['layers'"):
        read_keras2_file(tmp_path / "net.weights.h5")


def test_variables_of_nested_layers_are_named_by_layer_and_weight():
    inner = _network(4, name="inner")
    model = keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(2, use_bias=False, name="out")])
    variables = keras_variables(model)
    # "out" has one weight only, which gets the name of its layer.
    assert {name: target.shape for name, target in variables.items()} == {
        "layer_0/kernel": (3, 4),
        "layer_0/bias": (4,),
        "out": (4, 2),
    }


def test_numbers_that_keras_gave_to_layers_are_counted_from_zero():
    arrays = {f"conv2d_{number}/{weight}:0": np.array(number) for number in (94, 7) for weight in ("kernel", "bias")}
    targets = dict.fromkeys(("conv2d_0/kernel", "conv2d_0/bias", "conv2d_1/kernel", "conv2d_1/bias"))
    named = name_by_layer(arrays, targets)
    assert {name: int(array) for name, array in named.items()} == {
        "conv2d_0/kernel": 7,
        "conv2d_0/bias": 7,
        "conv2d_1/kernel": 94,
        "conv2d_1/bias": 94,
    }


def test_head_that_the_model_does_not_have_is_left_out():
    arrays = {
        f"{layer}/{weight}:0": np.zeros(1) for layer in ("conv1", "predictions", "dense_3") for weight in ("kernel", "bias")
    }
    assert set(name_by_layer(arrays, dict.fromkeys(("conv1/kernel", "conv1/bias")))) == {"conv1/kernel", "conv1/bias"}
    with_head = ("conv1/kernel", "conv1/bias", "predictions/kernel", "predictions/bias")
    assert set(name_by_layer(arrays, dict.fromkeys(with_head))) == set(with_head)


def test_layers_are_renamed_and_models_around_them_dropped():
    arrays = {"resnet/block_1/depthwise_kernel:0": np.zeros(1), "resnet/block_1/bias:0": np.zeros(1)}
    named = name_by_layer(
        arrays, dict.fromkeys(("stage_1/kernel", "stage_1/bias")), lambda name: name.replace("block", "stage")
    )
    assert set(named) == {"stage_1/kernel", "stage_1/bias"}


def test_file_that_unpacks_to_far_more_than_it_is_is_not_unpacked(tmp_path):
    _write_keras2(tmp_path / "net.h5", {"dense/kernel": np.ones((2, 3), "float32")}, whole_model=False)
    with h5py.File(tmp_path / "net.h5", "a") as file:
        del file["dense/dense/kernel"]
        file["dense"].create_dataset("dense/kernel", (4096, 4096), "float32", compression="gzip")
    with pytest.raises(ValueError, match=r"net\.h5 has .* bytes and would unpack to 67,108,864"):
        read_keras2_file(tmp_path / "net.h5")
