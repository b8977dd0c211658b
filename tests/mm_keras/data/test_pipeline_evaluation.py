import itertools

import numpy as np
import pytest

from mm_keras.data.pipeline import iter_texts, make_evaluation_batches, make_training_batches
from mm_keras.objectives.losses import make_loss
from mm_keras.objectives.metrics import evaluate_logits, make_metrics
from tests.mm_keras.data.pipeline_rows import LABELS, TEXT_ONLY, WORDS, assert_contract, ids_of, make_spec, make_training
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.sources.example import SourceExample


def test_evaluation_visits_every_labelled_example_once_in_the_order_of_the_records(folder, read_split):
    batches = make_evaluation_batches(Split.open(folder, "train"), make_spec(), 32)
    assert (batches.steps, batches.num_examples) == (4, 100)
    stored = [record.texts["title"][0] for record in read_split(folder, "train") if record.label_ids]
    assert len(stored) == 100
    padded = []
    for inputs, _, weights in batches.dataset.as_numpy_iterator():
        assert len(weights) == 32
        padded += zip(inputs["title_token_ids"][:, 0], weights, strict=True)
    assert [WORDS[index - 2] for index, _ in padded[:100]] == stored
    assert [weight for _, weight in padded] == [1] * 100 + [0] * 28


def test_filling_is_empty(folder):
    *_, (inputs, labels, weights) = make_evaluation_batches(
        Split.open(folder, "train"), make_spec(), 32
    ).dataset.as_numpy_iterator()
    assert weights.tolist() == [1] * 4 + [0] * 28
    assert not labels[4:].any()
    for tensor in inputs.values():
        assert not tensor[4:].any()


@pytest.mark.parametrize("batch_size", [1, 100, 300])
def test_evaluation_fits_any_batch_size(folder, batch_size):
    batches = make_evaluation_batches(Split.open(folder, "train"), TEXT_ONLY, batch_size)
    assert batches.steps == -(-100 // batch_size)
    assert sum(weights.sum() for _, _, weights in batches.dataset.as_numpy_iterator()) == 100


@pytest.mark.parametrize("multi_label", [False, True])
def test_filled_up_evaluation_measures_what_unpadded_arrays_do(request, build_small_model, multi_label):
    prefix = "multi_label_" if multi_label else ""
    features, dataset = (request.getfixturevalue(prefix + name) for name in ("features", "dataset"))
    model = build_small_model(features)
    model.compile(
        loss=make_loss(multi_label), weighted_metrics=make_metrics(multi_label, len(features.labels)), jit_compile=False
    )
    batches = make_evaluation_batches(Split.open(dataset, "test"), features, 16)
    assert batches.num_examples % 16
    measured = model.evaluate(batches.dataset, verbose=0, return_dict=True)
    parts = [
        (model.predict_on_batch(inputs), labels, weights) for inputs, labels, weights in batches.dataset.as_numpy_iterator()
    ]
    logits, labels, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    logits, labels = logits[weights > 0].astype("float64"), labels[weights > 0]
    exact = evaluate_logits(logits, labels, multi_label)
    if multi_label:
        cross_entropy = np.mean(np.logaddexp(0, logits) - labels * logits)
    else:
        true = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)[:, 0]
        cross_entropy = np.mean(np.log(np.exp(logits).sum(axis=1)) - true)
    for name in ("top_1", "top_5", "micro_f1"):
        assert measured.get(name) == (pytest.approx(exact[name], abs=1e-6) if name in exact else None)
    assert measured["cross_entropy"] == pytest.approx(cross_entropy, rel=1e-5)


def test_split_without_a_label_cannot_be_evaluated_or_learned(tmp_path, pack_examples):
    examples = [
        SourceExample(
            f"e{i}",
            f"rows:{i}",
            texts={"title": ["x"]},
            labels=[] if i < 4 else ["ab"[i % 2]],
            split="new" if i < 4 else "train",
        )
        for i in range(8)
    ]
    folder = pack_examples(tmp_path / "unlabelled", examples)
    features = make_spec(None, ("title",), labels=("a", "b"))
    with pytest.raises(ValueError, match="split 'new' of dataset 'unlabelled' has no labelled example"):
        make_evaluation_batches(Split.open(folder, "new"), features, 2)
    with pytest.raises(ValueError, match="split 'new' of dataset 'unlabelled' has no labelled example"):
        make_training_batches(Split.open(folder, "new"), features, 2, 1)


def test_split_that_is_not_there_is_an_error(folder):
    for make in (
        lambda: make_evaluation_batches(Split.open(folder, "tset"), TEXT_ONLY, 2),
        lambda: make_training_batches(Split.open(folder, "tset"), TEXT_ONLY, 2, 1),
    ):
        with pytest.raises(ValueError, match=r"no split 'tset'; it has \['train'\]"):
            make()


def test_field_that_is_not_there_is_an_error(folder):
    with pytest.raises(ValueError, match=r"no text field 'titel'; it has \['caption', 'none', 'title'\]"):
        make_evaluation_batches(Split.open(folder, "train"), make_spec(None, ("titel",)), 2)


@pytest.mark.parametrize(
    "features", [make_spec(labels=("a", "c", "b")), make_spec(labels=("a", "b")), make_spec(multi_label=True)]
)
def test_other_labels_than_the_models_are_an_error_that_says_what_to_do(folder, features):
    for make in (
        lambda: make_evaluation_batches(Split.open(folder, "train"), features, 2),
        lambda: make_training(folder, features),
    ):
        with pytest.raises(
            ValueError, match=r"has 3 multi-class labels .*'c'.* pack the dataset with the model's labels: .*--labels="
        ):
            make()


def test_folder_that_is_no_dataset_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no dataset folder"):
        make_evaluation_batches(Split.open(tmp_path, "train"), TEXT_ONLY, 2)


def test_texts_of_a_split_are_all_there(folder):
    texts = list(itertools.chain(*iter_texts(Split.open(folder, "train"), ["title", "caption"])))
    assert sorted(texts) == sorted(word.encode() for word in WORDS)


def test_any_name_of_a_field_will_do(tmp_path, pack_examples):
    fields = ("label", "weight", "image_present", "product name", "größe")
    examples = [
        SourceExample(f"e{i}", f"rows:{i}", texts={field: [f"t{i}"] for field in fields}, labels=["ab"[i % 2]], weight=3)
        for i in range(4)
    ]
    folder = pack_examples(tmp_path / "named", examples, fields)
    features = make_spec((16, 16), fields, labels=("a", "b"))
    for batches in (make_training(folder, features, 4), make_evaluation_batches(Split.open(folder, "train"), features, 4)):
        assert_contract(batches, features)
        ((inputs, labels, _),) = batches.dataset.as_numpy_iterator()
        for field in fields:
            (words,) = ids_of(batches, field)
            assert labels.tolist() == [int(word[1:]) % 2 for word in words]
        assert not inputs["image_present"].any()


def test_model_with_further_labels_reads_a_dataset_of_the_first_ones(folder, tags_folder):
    labels = {}
    for names in (LABELS, (*LABELS, "new")):
        (_, labels[names], _), *_ = make_evaluation_batches(
            Split.open(folder, "train"), make_spec(labels=names), 8
        ).dataset.as_numpy_iterator()
    np.testing.assert_array_equal(*labels.values())
    spec = make_spec(None, ("title",), multi_label=True, labels=(*LABELS, "new"))
    ((_, hot, _),) = make_evaluation_batches(Split.open(tags_folder, "train"), spec, 7).dataset.as_numpy_iterator()
    assert hot.shape == (7, 4)
    assert not hot[:, 3].any()
    for wrong in (("new", *LABELS), (*LABELS[:-1], "new", LABELS[-1]), LABELS[:-1]):
        with pytest.raises(ValueError, match="pack the dataset with the model's labels"):
            make_evaluation_batches(Split.open(folder, "train"), make_spec(labels=wrong), 8)
