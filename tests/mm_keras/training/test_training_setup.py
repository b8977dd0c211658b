import keras
import pytest

from mm_keras.training.checkpoint import CheckpointError
from mm_keras.training.training_setup import check_setup, describe_features, describe_training, save_setup


def _model(units=3, rate=0.1, frozen=1.0):
    inputs = keras.Input((2,))
    first = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(frozen), trainable=False)
    trained = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, name="out")], name="trained")
    model = keras.Model(inputs, trained(first(inputs)))
    trained.compile(keras.optimizers.SGD(rate), "mse")
    return model, trained


def _describe(model=None, splits=(), **settings):
    return describe_training(*(model or _model()), splits, **settings)


def test_same_training_is_described_alike_though_keras_numbers_layers_on():
    assert _describe(seed=3) == _describe(seed=3)


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"units": 4}, "units"),
        ({"rate": 0.2}, "learning_rate"),
        ({"frozen": 2.0}, "frozen_weights"),
    ],
)
def test_other_layer_optimizer_or_frozen_weight_shows_in_the_description(changed, key):
    before, now = _describe(), _describe(_model(**changed))
    assert any(key in name for name in before if before[name] != now.get(name))


def test_dataset_is_described_by_its_files_not_by_its_folder(dataset, tmp_path):
    from tfrecords_tools.dataset.folder import Split

    (tmp_path / "moved").symlink_to(dataset)
    there, moved = (_describe(splits=[Split.open(folder, "train")]) for folder in (dataset, tmp_path / "moved"))
    assert there == moved
    assert there != _describe(splits=[Split.open(dataset, "val")])


def test_features_differ_by_size_labels_and_vocabulary(make_spec):
    spec = describe_features(make_spec())
    assert spec == describe_features(make_spec())
    for other in (make_spec(image=(8, 8)), make_spec(num_labels=5), make_spec(max_tokens=7), make_spec(image=None)):
        assert describe_features(other) != spec


def test_saved_setup_fits_the_same_training(tmp_path):
    save_setup(tmp_path / "training.json", _describe(seed=3, splits=()))
    check_setup(tmp_path / "training.json", _describe(seed=3))


def test_another_training_is_an_error_that_lists_what_differs(tmp_path):
    path = tmp_path / "run" / "training.json"
    path.parent.mkdir()
    save_setup(path, _describe(seed=3, epochs=2))
    with pytest.raises(CheckpointError) as error:
        check_setup(path, _describe(seed=4, batch_size=8))
    message = str(error.value)
    for line in ("seed: 3 in the run, 4 now", "epochs: 2 in the run, nothing now", "batch_size: nothing in the run, 8 now"):
        assert line in message
    assert "resume it with what it was started with, or choose another --workdir" in message
    assert "learning_rate" not in message
