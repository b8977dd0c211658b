import numpy as np
import pytest

from mm_keras.solving.rows import make_blocks, make_folds


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    return {
        "image_encoded": rng.normal(size=(20, 6)).astype("float32"),
        "image_present": np.arange(20) != 3,
        "title_encoded": rng.normal(size=(20, 4)).astype("float32"),
        "title_present": np.arange(20) != 5,
        "title_token_ids": rng.integers(2, 7, (20, 6)),
        "title_padding_mask": np.arange(6) < rng.integers(1, 7, (20, 1)),
    }


def test_blocks_stand_in_the_models_order_and_are_zero_where_nothing_is(make_spec, inputs):
    blocks, words = make_blocks(make_spec(), inputs, {"image": [2, 4], "title": [4]})
    assert [(block.name, block.modality) for block in blocks] == [
        ("image 1", 0),
        ("image 2", 0),
        ("title", 1),
        ("title words", 1),
    ]
    assert not blocks[0].values[3].any() and not blocks[3].values[[5]].toarray().any()
    np.testing.assert_allclose(np.linalg.norm(blocks[1].values[:3], axis=1), 1, rtol=1e-6)
    again, _ = make_blocks(
        make_spec(), {name: values[:4] for name, values in inputs.items()}, {"image": [2, 4], "title": [4]}, words
    )
    np.testing.assert_allclose(again[3].values.toarray(), blocks[3].values[:4].toarray())


def test_copies_are_in_one_fold(make_spec, inputs):
    inputs["image_encoded"][7] = inputs["image_encoded"][0]
    inputs["title_encoded"][12] = inputs["title_encoded"][7]
    folds = make_folds(make_spec(), inputs, np.arange(20) % 2, seed=0)
    assert folds[0] == folds[7] == folds[12]
    assert len(set(folds)) == 5


def test_two_different_examples_can_be_held_out_from_each_other(make_spec, inputs):
    two = {name: values[:2] for name, values in inputs.items()}
    assert sorted(make_folds(make_spec(), two, np.array([0, 1]), seed=0)) == [0, 1]


def test_examples_that_are_all_the_same_are_an_error(make_spec, inputs):
    same = {name: np.repeat(values[:1], 2, axis=0) for name, values in inputs.items()}
    with pytest.raises(ValueError, match="at least two different examples; there are 2, all with the same inputs"):
        make_folds(make_spec(), same, np.array([0, 1]), seed=0)
