import itertools

import numpy as np
import pytest

from mm_keras.data.augment import make_augmentation
from mm_keras.data.pipeline import make_evaluation_batches, make_training_batches
from mm_keras.distribution.workers import Worker
from tests.mm_keras.data.pipeline_rows import LABELS, NUM, WORDS, ids_of, make_spec
from tfrecords_tools.dataset.folder import Split
from tfrecords_tools.sources.example import SourceExample


@pytest.fixture(scope="module")
def even_folder(tmp_path_factory, pack_examples):
    """96 labelled examples in six files of about 16."""
    examples = [
        SourceExample(f"e{index}", f"rows:{index}", texts={"title": [f"t{index}"]}, labels=[LABELS[index % 3]])
        for index in range(96)
    ]
    return pack_examples(tmp_path_factory.mktemp("pipeline") / "even", examples, ("title",), examples_per_shard=16)


TITLES = make_spec(image=None, fields=("title",))


def _of_workers(make, folder, count, batch_size, **options):
    """For each worker its batches' ids."""
    made = [
        make(Split.open(folder, "train"), TITLES, batch_size, worker=Worker(index, count), **options) for index in range(count)
    ]
    assert {(batches.steps, batches.num_examples, batches.batch_size) for batches in made} == {
        (made[0].steps, made[0].num_examples, batch_size)
    }
    return [ids_of(batches) for batches in made]


@pytest.mark.parametrize("count", [3, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 4))])
def test_workers_that_share_files_get_the_parts_of_one_workers_batches(folder, count):
    """Of files with unlabelled records nobody knows how many count, so none can be dealt out."""
    options = {"epochs": 2, "seed": 5}
    parts = _of_workers(make_training_batches, folder, count, 12, **options)
    (whole,) = _of_workers(make_training_batches, folder, 1, 12, **options)
    for step, batch in enumerate(whole):
        assert all(len(part[step]) == 12 // count for part in parts)
        assert sorted(itertools.chain(*(part[step] for part in parts))) == sorted(batch)


@pytest.mark.parametrize(("count", "own_files"), [(2, True), (4, False)])
def test_files_are_dealt_out_where_they_come_to_equal_parts(even_folder, count, own_files):
    parts = _of_workers(make_training_batches, even_folder, count, 12, epochs=2, seed=5)
    epochs = [[set(itertools.chain(*part[:8])) for part in parts], [set(itertools.chain(*part[8:])) for part in parts]]
    for epoch in epochs:
        assert sum(map(len, epoch)) == len(set.union(*epoch)) == 96  # each example once
    assert (epochs[0] == epochs[1]) == own_files
    resumed = _of_workers(make_training_batches, even_folder, count, 12, epochs=2, seed=5, start=11)
    assert resumed == [part[11:] for part in parts]


def test_augmentation_of_a_workers_examples_is_its_own(even_folder):
    """Indices, from which it is drawn, are not those of the other worker's examples."""
    made = [
        make_training_batches(
            Split.open(even_folder, "train"),
            TITLES,
            8,
            1,
            worker=Worker(index, 2),
            augment=make_augmentation(token_dropout=0.5),
        )
        for index in range(2)
    ]
    hidden = [np.concatenate([inputs["title_token_ids"][:, 0] for inputs, _, _ in each.dataset]) for each in made]
    assert not np.array_equal(*hidden)


QUICK = {(1, 36), (2, 120), (3, 12), (4, 84)}


@pytest.mark.parametrize(
    ("count", "batch_size"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product([1, 2, 3, 4], [12, 36, 84, 120])
    ],
)
@pytest.mark.parametrize("data", ["folder", "even_folder"])
def test_workers_evaluate_each_example_once(request, data, count, batch_size):
    dataset, expected = request.getfixturevalue(data), {"folder": NUM - 5, "even_folder": 96}[data]
    seen, steps = [], set()
    for index in range(count):
        batches = make_evaluation_batches(Split.open(dataset, "train"), TITLES, batch_size, worker=Worker(index, count))
        made = list(batches.dataset.as_numpy_iterator())
        steps.add(len(made))
        for inputs, _, weights in made:
            assert len(weights) == batch_size // count
            seen += [WORDS[token - 2] for token in inputs["title_token_ids"][weights == 1, 0]]
    assert steps == {-(-expected // batch_size)}
    assert len(seen) == len(set(seen)) == expected


def test_ids_of_batches_are_those_of_the_workers_examples(even_folder, folder):
    for dataset in (even_folder, folder):
        batches = make_training_batches(Split.open(dataset, "train"), TITLES, 12, 1, seed=1, worker=Worker(1, 2))
        titles = [[f"t{int(each[1:])}" for each in ids.astype(str)] for ids in batches.ids.as_numpy_iterator()]
        assert titles == ids_of(batches)
