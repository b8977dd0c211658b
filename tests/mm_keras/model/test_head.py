import keras
import numpy as np
import pytest

from mm_keras.model.head import (
    PerLabelDense,
    add_classes,
    build_class_embedding_head,
    build_head,
    build_per_label_head,
    embed_class,
    grow_head,
)
from mm_keras.objectives.losses import make_loss


@pytest.mark.parametrize(("hidden", "num_dense"), [((), 1), ((8,), 2), ((8, 4), 3)])
def test_head_has_its_hidden_layers_and_one_logit_a_label(hidden, num_dense):
    head = build_head(6, 5, hidden)
    assert (head.name, head.input.shape, head.output.shape) == ("head", (None, 6), (None, 5))
    dense = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [*hidden, 5]
    assert len(dense) == num_dense


def test_logits_are_not_squashed():
    head = build_head(2, 3)
    head.get_layer("logits").set_weights([np.full((2, 3), 50.0), np.zeros(3)])
    np.testing.assert_array_equal(head(np.ones((1, 2), "float32")), [[100, 100, 100]])
    np.testing.assert_array_equal(head(-np.ones((1, 2), "float32")), [[-100, -100, -100]])


@pytest.mark.parametrize("build", [build_head, build_per_label_head])
def test_added_classes_begin_between_old_ones_which_do_not_change(build, fused):
    inputs = keras.Input((6,), name="x")
    model = keras.Model(inputs, build(6, 3)(inputs))
    grown = grow_head(model, np.array([[0, 1, 0], [0.5, 0, 0.5]]))
    before, after = model(fused), grown(fused)
    np.testing.assert_allclose(after[:, :3], before, atol=1e-6)
    np.testing.assert_allclose(after[:, 3], before[:, 1], atol=1e-6)
    np.testing.assert_allclose(after[:, 4], (before[:, 0] + before[:, 2]) / 2, atol=1e-6)


def test_classes_are_not_added_to_a_head_of_class_embeddings():
    inputs = keras.Input((6,), name="x")
    model = keras.Model(inputs, build_class_embedding_head(6, 2, np.eye(2, 4))(inputs))
    with pytest.raises(ValueError, match=r"not to one that ends in ClassSimilarity; `mm-keras add-classes`"):
        grow_head(model, np.ones((1, 2)) / 2)


def test_dropout_is_for_training_alone():
    head = build_head(64, 3, dropout=0.5)
    fused = np.ones((2, 64), "float32")
    np.testing.assert_array_equal(head(fused), head(fused))
    assert not np.array_equal(head(fused, training=True), head(fused))


@pytest.fixture
def fused():
    return np.random.default_rng(0).normal(size=(5, 6)).astype("float32")


def test_per_label_head_is_one_dense_layer_outside_training(fused):
    head = build_per_label_head(6, 3)
    kernel, bias = head.get_weights()
    assert (head.name, head.output.shape, kernel.shape) == ("head", (None, 3), (6, 3))
    np.testing.assert_allclose(head(fused), fused @ kernel + bias, atol=1e-5)


def test_labels_of_a_per_label_head_drop_inputs_of_their_own():
    """Each logit keeps about 0.6 of 1,000 equal inputs, scaled by 1 / 0.6, and no two labels keep the same."""
    head = build_per_label_head(1000, 8, dropout=0.4)
    head.set_weights([np.full((1000, 8), 0.001), np.zeros(8)])
    logits = np.asarray(head(np.ones((4, 1000), "float32"), training=True))
    np.testing.assert_allclose(logits, np.ones((4, 8)), atol=0.15)
    assert len(set(logits.round(6).ravel().tolist())) > 16
    again = np.asarray(head(np.ones((4, 1000), "float32"), training=True))
    assert not np.array_equal(logits, again)
    plain = build_per_label_head(1000, 8, dropout=0.0)
    np.testing.assert_allclose(plain(np.ones((1, 1000), "float32"), training=True), plain(np.ones((1, 1000), "float32")))


def _classes(number, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(number, width))


def test_class_embedding_head_gives_scaled_cosines(fused):
    head = build_class_embedding_head(6, 3, 7 * _classes(3), initial_scale=20.0, initial_bias=-5.0)
    kernel, bias = head.get_layer("projection").get_weights()
    projected = fused @ kernel + bias
    cosines = (projected / np.linalg.norm(projected, axis=1, keepdims=True)) @ (
        _classes(3) / np.linalg.norm(_classes(3), axis=1, keepdims=True)
    ).T
    np.testing.assert_allclose(head(fused), 20 * cosines - 5, atol=1e-4)
    assert np.abs(np.asarray(head(fused)) + 5).max() <= 20


def test_classes_are_projected_to_a_width_if_asked_for(fused):
    head = build_class_embedding_head(6, 3, _classes(3), width=5)
    layer = head.get_layer("class_similarity")
    assert layer.projection.shape == (4, 5)
    assert head.get_layer("projection").units == 5
    assert np.abs(np.asarray(head(fused))).max() <= 10 + 1e-5


@pytest.mark.parametrize(("width", "num_trained"), [(None, 4), (5, 5)])
def test_training_changes_all_but_the_class_embeddings(fused, width, num_trained):
    head = build_class_embedding_head(6, 3, _classes(3), width)
    assert len(head.trainable_weights) == num_trained
    before = {weight.path: np.array(weight) for weight in head.weights}
    head.compile(keras.optimizers.SGD(0.1), make_loss(False), jit_compile=False)
    head.fit(fused, np.array([0, 1, 2, 0, 1]), epochs=2, verbose=0)
    same = {weight.path for weight in head.weights if np.array_equal(before[weight.path], weight)}
    assert same - {"class_similarity/bias"} == {"class_similarity/class_embeddings"}  # softmax does not see the bias


def test_scale_is_learned_up_to_one_hundred(fused):
    head = build_class_embedding_head(6, 3, _classes(3))
    head.get_layer("class_similarity").log_scale.assign(20.0)
    assert 50 < np.abs(np.asarray(head(fused))).max() <= 100 + 1e-3


def _two_tower(fused_width=6, num_labels=3, **options):
    inputs = {"x": keras.Input((fused_width,), name="x"), "present": keras.Input((), dtype="bool", name="present")}
    shown = keras.ops.where(keras.ops.expand_dims(inputs["present"], -1), inputs["x"], 0.0)
    head = build_class_embedding_head(fused_width, num_labels, _classes(num_labels), **options)
    return keras.Model(inputs, head(shown), name="two_tower")


@pytest.mark.parametrize("width", [None, 5])
def test_added_classes_leave_the_old_logits_as_they_are(fused, width, tmp_path):
    model = _two_tower(width=width)
    inputs = {"x": fused, "present": np.arange(5) < 4}
    more = add_classes(model, _classes(2, seed=1))
    old, new = np.asarray(model(inputs)), np.asarray(more(inputs))
    assert (old.shape, new.shape) == ((5, 3), (5, 5))
    np.testing.assert_array_equal(new[:, :3], old)
    at_once = _two_tower(num_labels=5, width=width)
    at_once.get_layer("head").set_weights(more.get_layer("head").get_weights())
    np.testing.assert_array_equal(new, at_once(inputs))
    more.save(tmp_path / "more.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "more.keras")(inputs), new)
    assert add_classes(more, _classes(1, seed=2)).output.shape == (None, 6)


def test_class_that_is_added_scores_as_one_that_was_there(fused):
    model = _two_tower()
    logits = np.asarray(add_classes(model, 3 * _classes(3)[[1]])({"x": fused, "present": np.ones(5, bool)}))
    np.testing.assert_allclose(logits[:, 3], logits[:, 1], atol=1e-5)


@pytest.mark.parametrize("width", [None, 3])
def test_class_that_is_added_by_examples_lies_in_their_midst(fused, width):
    model = _two_tower(width=width)
    examples = np.asarray(fused)[:2]
    more = add_classes(model, embed_class(model, examples)[np.newaxis])
    one = add_classes(model, embed_class(model, examples[:1])[np.newaxis])
    scale = float(np.exp(model.get_layer("head").get_layer("class_similarity").log_scale))
    present = np.ones(2, bool)
    logits = np.asarray(more({"x": examples, "present": present}))[:, 3]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-3)
    assert logits[0] > 0
    np.testing.assert_allclose(np.asarray(one({"x": examples, "present": present}))[0, 3], scale, rtol=1e-4)  # a cosine of 1


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (None, r"bind train\.embed_classes = @embed_classes"),
        (_classes(2), r"shape \[3, C\], a row a class. Received: \(2, 4\)"),
        (np.ones(3), r"Received: \(3,\)"),
        (np.eye(3) - np.eye(3)[1], "the embedding of class 1 is zero or not finite"),
        (np.array([[1.0], [np.nan], [1.0]]), "class 1"),
    ],
)
def test_class_embeddings_that_do_not_fit_are_errors(embeddings, message):
    with pytest.raises(ValueError, match=message):
        build_class_embedding_head(6, 3, embeddings)


def test_classes_cannot_be_added_to_another_head_or_of_another_width():
    inputs = keras.Input((6,))
    plain = keras.Model(inputs, build_head(6, 3)(inputs))
    with pytest.raises(ValueError, match=r"build_two_tower\.head = @build_class_embedding_head"):
        add_classes(plain, _classes(1))
    with pytest.raises(ValueError, match=r"shape \[1, 4\], a row a class. Received: \(1, 5\)"):
        add_classes(_two_tower(), _classes(1, width=5))


@pytest.mark.parametrize("scale", [0.0, 101.0])
def test_impossible_scale_is_an_error(scale):
    with pytest.raises(ValueError, match=rf"within \(0, 100\]. Received: {scale}"):
        build_class_embedding_head(6, 3, _classes(3), initial_scale=scale)


def test_impossible_rate_is_an_error():
    with pytest.raises(ValueError, match=r"Received: 1\.0"):
        build_per_label_head(6, 3, dropout=1.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: build_head(6, 3, dropout=0.0),
        lambda: build_per_label_head(6, 3, dropout=0.4),
        lambda: build_class_embedding_head(6, 3, _classes(3), width=5, dropout=0.0),
    ],
)
def test_heads_train_compiled_as_they_do_plainly(build, fused):
    """XLA, which needs static shapes; the dropout of a head of its own is drawn anew, so it is only known to learn."""
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        head = build()
        head.compile(keras.optimizers.SGD(0.1), make_loss(True), jit_compile=jit_compile)
        hot = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1]]
        losses.append([float(head.train_on_batch(fused, hot)) for _ in range(20)])
    assert losses[1][-1] < losses[1][0]
    if not isinstance(head.layers[-1], PerLabelDense):
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
