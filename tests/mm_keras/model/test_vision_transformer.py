import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from mm_keras.model.vision_transformer import build_vision_transformer
from mm_keras.model.vision_transformer_weights import load_transformer_weights
from tests.mm_keras.model.torch_reference import TRANSFORMER, draw, draw_pictures

REFERENCE = json.loads((Path(__file__).parent / "torch_reference.json").read_text("utf-8"))
KINDS = ("clip", "siglip", "vit")
SIZE = (TRANSFORMER["size"],) * 2
CONFIGS = {  # what a Hugging Face folder says
    "clip": {"vision_config": {"hidden_act": "quick_gelu", "num_attention_heads": 2, "image_size": 32}},
    "siglip": {"vision_config": {"hidden_act": "gelu_pytorch_tanh", "num_attention_heads": 2, "image_size": 32}},
    "vit": {"hidden_act": "gelu", "num_attention_heads": 2, "image_size": 32},
}


def _quick(quick):
    """All kinds, of which one is not slow: for what is done in the same way for each."""
    return [kind if kind == quick else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


def _build(kind, size=SIZE, **changes):
    sizes = {key: value for key, value in TRANSFORMER.items() if key != "size"} | changes
    return build_vision_transformer((*size, 3), f"small_{kind}", kind, **sizes)


@pytest.fixture
def write_folder(tmp_path):
    """A function: kind -> a Hugging Face folder; of the whole model for CLIP and SigLIP."""

    def write(kind, parts=1, **changes):
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        config = json.loads(json.dumps(CONFIGS[kind]))
        config.get("vision_config", config).update(changes)
        (folder / "config.json").write_text(json.dumps(config))
        state = {name: draw(name, tuple(shape)) for name, shape in REFERENCE[kind]["shapes"].items()}
        if parts == 1:
            save_file(state, folder / "model.safetensors")
            return folder
        files = {name: f"model-0000{index % parts + 1}-of-0000{parts}.safetensors" for index, name in enumerate(state)}
        for file in set(files.values()):
            save_file({name: state[name] for name in state if files[name] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
        return folder

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_hugging_face_weights_answer_as_transformers_does(write_folder, kind):
    for source in (write_folder(kind), write_folder(kind) / "model.safetensors"):
        model = _build(kind)
        load_transformer_weights(model, source)
        embedding = np.asarray(model(draw_pictures(SIZE)))[:, :8]
        np.testing.assert_allclose(embedding.reshape(-1), REFERENCE[kind]["embedding"], atol=1e-4)


def test_weights_in_several_files_are_joined(write_folder):
    folder = write_folder("vit", parts=3)
    model = _build("vit")
    load_transformer_weights(model, folder)
    embedding = np.asarray(model(draw_pictures(SIZE)))[:, :8]
    np.testing.assert_allclose(embedding.reshape(-1), REFERENCE["vit"]["embedding"], atol=1e-4)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"folder .* holds no weights.*Missing: model-00002-of-00003.safetensors"):
        load_transformer_weights(_build("vit"), folder)


def test_newer_names_of_vit_are_known(tmp_path):
    """What transformers 5 has in memory, so what torch.save keeps of it."""
    renamed = {}
    for name, shape in REFERENCE["vit"]["shapes"].items():
        new = name.replace("encoder.layer.", "layers.").replace("attention.attention.query", "attention.q_proj")
        new = new.replace("attention.attention.key", "attention.k_proj").replace(
            "attention.attention.value", "attention.v_proj"
        )
        new = new.replace("attention.output.dense", "attention.o_proj").replace("intermediate.dense", "mlp.fc1")
        renamed[new.replace("output.dense", "mlp.fc2")] = draw(name, tuple(shape))
    save_file(renamed, tmp_path / "vit.safetensors")
    model = _build("vit")
    load_transformer_weights(model, tmp_path / "vit.safetensors")
    embedding = np.asarray(model(draw_pictures(SIZE)))[:, :8]
    np.testing.assert_allclose(embedding.reshape(-1), REFERENCE["vit"]["embedding"], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_random_transformer_knows_where_its_patches_are(kind):
    model = _build(kind)
    pictures = draw_pictures(SIZE)
    moved = np.roll(pictures, 8, axis=1)  # by one patch
    if kind == "siglip":  # positions start small
        embedding = model.parts["embedding"][0].position_embedding
        embedding.embeddings.assign(draw("positions", embedding.embeddings.shape))
    assert np.abs(np.asarray(model(pictures)) - np.asarray(model(moved))).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_presets_load(tmp_path, kind):
    import keras_hub

    mine = _build(kind)
    whole = mine.backbone
    if kind != "vit":
        text = {"vocabulary_size": 20, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 32}
        classes = {"clip": ("CLIPTextEncoder", "CLIPBackbone"), "siglip": ("SigLIPTextEncoder", "SigLIPBackbone")}
        encoder, backbone = (getattr(keras_hub.models, name) for name in classes[kind])
        width = {"embedding_dim": 32, "max_sequence_length": 4}
        extra = {"projection_dim": 8} if kind == "clip" else {}
        whole = backbone(vision_encoder=whole, text_encoder=encoder(**text, **width), **extra)
    whole.save_to_preset(str(tmp_path / "preset"))
    other = _build(kind)
    load_transformer_weights(other, tmp_path / "preset")
    np.testing.assert_array_equal(other(draw_pictures(SIZE)), mine(draw_pictures(SIZE)))
    with pytest.raises(
        ValueError, match=r"preset .* does not fit 'small_\w+': image_shape \(32, 32, 3\) instead of \(64, 64, 3\)"
    ):
        load_transformer_weights(_build(kind, (64, 64)), tmp_path / "preset")
    with pytest.raises(ValueError, match=r"num_heads 2 instead of 4"):
        load_transformer_weights(_build(kind, heads=4), tmp_path / "preset")


@pytest.mark.parametrize("kind", _quick("vit"))
def test_weights_of_keras_load(tmp_path, kind):
    mine, other = _build(kind), _build(kind)
    mine.backbone.save_weights(tmp_path / "small.weights.h5")
    load_transformer_weights(other, tmp_path / "small.weights.h5")
    np.testing.assert_array_equal(other(draw_pictures(SIZE)), mine(draw_pictures(SIZE)))
    with pytest.raises(ValueError, match=r"small.weights.h5 does not fit 'small_\w+':\n  \d+ of \d+ missing from the file: "):
        load_transformer_weights(_build(kind, blocks=3), tmp_path / "small.weights.h5")


@pytest.mark.parametrize("kind", _quick("clip"))
def test_config_that_shapes_do_not_show_is_checked(write_folder, kind):
    with pytest.raises(ValueError, match=r"config.json does not fit 'small_\w+': num_attention_heads is 2, not 4"):
        load_transformer_weights(_build(kind, heads=4), write_folder(kind))
    with pytest.raises(ValueError, match=r"hidden_act is relu, not (quick_gelu|gelu|gelu_approximate)"):
        load_transformer_weights(_build(kind), write_folder(kind, hidden_act="relu"))
    with pytest.raises(ValueError, match=r"image_size is \(32, 32\), not \(64, 64\)"):
        load_transformer_weights(_build(kind, (64, 64)), write_folder(kind))


@pytest.mark.parametrize("kind", _quick("clip"))
def test_weights_of_another_size_are_listed(write_folder, kind):
    model = _build(kind, blocks=3)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"does not fit 'small_\w+':\n  16 of \d+ missing from the file: layers.2.") as error:
        load_transformer_weights(model, write_folder(kind))
    assert "left over" not in str(error.value)
    for found, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match=r"left over in the file: (vision_model\.)?layers\.1\."):
        load_transformer_weights(_build(kind, blocks=1), write_folder(kind))


@pytest.mark.parametrize(("kind", "preset"), [("vit", "vit_base_patch16_224_imagenet"), ("clip", "clip_vit_base_patch16")])
def test_weights_that_are_nowhere_are_an_error_that_names_presets(kind, preset):
    with pytest.raises(FileNotFoundError, match=rf"weights no_such_thing do not exist.*presets for small_{kind}.*'{preset}'"):
        load_transformer_weights(_build(kind), "no_such_thing")


@pytest.mark.parametrize("kind", _quick("siglip"))
def test_frozen_parts_stay_frozen_when_saved(tmp_path, kind):
    model = _build(kind)
    assert list(model.parts) == ["embedding", "block_0", "block_1", "norm"]
    counts = []
    for number in range(5):
        model.freeze(number)
        counts.append(len(model.trainable_weights))
    assert counts[0] > counts[1] > counts[2] > counts[3] > counts[4] == 0
    model.freeze(2)
    pixels = keras.Input((*SIZE, 3))
    tower = keras.Model(pixels, model(pixels))
    tower.save(tmp_path / "tower.keras")
    loaded = keras.models.load_model(tmp_path / "tower.keras")
    np.testing.assert_array_equal(loaded(draw_pictures(SIZE)), tower(draw_pictures(SIZE)))
    shapes = [[weight.shape for weight in each.trainable_weights] for each in (loaded, tower)]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == counts[2]


def test_sizes_that_patches_do_not_fill_are_errors():
    with pytest.raises(ValueError, match=r"patches of 8x8 pixels: image_size must be a multiple. Received: \(36, 32, 3\)"):
        _build("vit", (36, 32))
    with pytest.raises(ValueError, match=r"small_clip sees square images alone. Received: \(32, 48, 3\)"):
        _build("clip", (32, 48))
    assert _build("vit", (32, 48))(np.zeros((1, 32, 48, 3))).shape == (1, 32)
