import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mm_keras.model.resnet import build_resnet, keras_resnet50_name, load_resnet_weights, torch_name, torch_variables
from tests.mm_keras.model.torch_reference import BLOCKS, RESNETS, SIZE, WIDTHS, draw, draw_pictures

REFERENCE = json.loads((Path(__file__).parent / "torch_reference.json").read_text("utf-8"))


def _build(kind, **changes):
    options = {**RESNETS[kind], "blocks": BLOCKS, "widths": WIDTHS, "padded_pool": kind != "legacy_seresnext"} | changes
    return build_resnet((*SIZE, 3), kind, **options | {"squeeze": bool(options.get("squeeze"))})


@pytest.fixture
def write_weights(tmp_path):
    """A function: (kind, changes) -> a state dict file of PyTorch's network of that kind."""

    def write(kind, **changes):
        state = {name: draw(name, tuple(shape)) for name, shape in REFERENCE[kind]["shapes"].items()} | changes
        path = tmp_path / f"{kind}.safetensors"
        save_file({name: array for name, array in state.items() if array is not None}, path)
        return path

    return write


@pytest.mark.parametrize("kind", sorted(RESNETS))
def test_converted_weights_answer_as_pytorch_does(write_weights, kind):
    model = _build(kind)
    load_resnet_weights(model, write_weights(kind))
    embedding = np.mean(model(draw_pictures(SIZE)), axis=(1, 2))
    np.testing.assert_allclose(embedding[:, :8].reshape(-1), REFERENCE[kind]["embedding"], atol=1e-4)


@pytest.mark.parametrize("changes", [{"padded_pool": True}, {"groups": 1, "group_width": 64}, {"squeeze": False}])
def test_other_network_of_the_family_does_not_answer_so(write_weights, changes):
    kind = "legacy_seresnext"
    model = _build(kind, **changes)
    if "padded_pool" not in changes:
        with pytest.raises(ValueError, match=r"(of another shape|left over) in the file"):
            load_resnet_weights(model, write_weights(kind))
        return
    load_resnet_weights(model, write_weights(kind))
    embedding = np.mean(model(draw_pictures(SIZE)), axis=(1, 2))
    assert np.abs(embedding[:, :8].reshape(-1) - REFERENCE[kind]["embedding"]).max() > 0.01


def test_state_dict_of_another_network_is_listed_and_changes_nothing(write_weights):
    model = _build("resnext")
    before = model.get_weights()
    stem = np.zeros((16, 3, 3, 3), "float32")
    path = write_weights("resnext", **{"conv1.weight": stem, "bn1.bias": None, "layer9.0.conv1.weight": stem})
    with pytest.raises(ValueError, match="does not fit") as error:
        load_resnet_weights(model, path)
    assert str(error.value).splitlines() == [
        f"{path} does not fit 'resnext':",
        "  1 of 100 missing from the file: bn1.bias",
        "  1 of 100 left over in the file: layer9.0.conv1.weight",
        "  1 of 100 of another shape in the file: conv1.weight (16, 3, 3, 3) instead of (16, 3, 7, 7)",
    ]
    for found, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_long_lists_of_differences_are_cut(write_weights):
    with pytest.raises(ValueError, match=r"\d\d of 100 missing from the file: (layer\d\.\d\.[\w.]+, ){6}…"):
        load_resnet_weights(_build("basic", blocks=(2, 2, 2, 2)), write_weights("basic"))


def test_names_are_those_of_torchvision():
    names = torch_variables(build_resnet((32, 32, 3), "resnet34", (3, 4, 6, 3), bottleneck=False, widths=(4, 8, 8, 8)))
    assert {"conv1.weight", "bn1.running_var", "layer4.2.bn2.bias", "layer2.0.downsample.0.weight"} <= set(names)
    assert not any(name.startswith("layer1.0.downsample") for name in names)
    assert len(names) == 36 * 5  # 33 convolutions and 3 shortcuts, each with a batch normalisation
    assert torch_name("layer0.conv1.weight") == "conv1.weight"
    assert torch_name("layer2.0.se_module.fc1.bias") == "layer2.0.se.fc1.bias"
    assert [torch_name(name) for name in ("fc.weight", "last_linear.bias", "bn1.num_batches_tracked")] == [None] * 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("conv1", "conv1_conv"),
        ("bn_conv1", "conv1_bn"),
        ("res2a_branch1", "conv2_block1_0_conv"),
        ("bn3d_branch2a", "conv3_block4_1_bn"),
        ("res5c_branch2c", "conv5_block3_3_conv"),
        ("fc1000", "fc1000"),
    ],
)
def test_older_names_of_keras_resnet50_are_known(old, new):
    assert keras_resnet50_name(old) == new
