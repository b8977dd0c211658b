import functools

import numpy as np
import pytest

from mm_keras.runs.add_classes import add_classes
from mm_keras.runs.few_shot import Examples, draw_shots, hold_out_classes, measure_few_shots, score_logits
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.sources.example import SourceExample

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (230, 230, 230)}


@pytest.fixture(scope="module")
def added(tmp_path_factory, pack_examples, encode_image, train_small, build_small_model):
    """(a run that learned three colours and was given a fourth, a dataset of all four)."""
    from mm_keras.data.text import make_word_tokenizer
    from mm_keras.model.head import build_class_embedding_head
    from mm_keras.runs.class_embeddings import embed_classes

    folder, rng = tmp_path_factory.mktemp("few_shot"), np.random.default_rng(0)

    def draw(names, labels=None):
        examples = []
        for index in range(40 * len(names)):
            name = names[index % len(names)]
            pixels = np.clip(rng.normal(COLOURS[name], 20, (16, 16, 3)), 0, 255).astype("uint8")
            split = ("train", "train", "val", "test")[index // len(names) % 4]
            image = encode_image(pixels, "PNG")
            examples.append(SourceExample(str(index), str(index), image, {"title": [name]}, [name], split))
        return pack_examples(folder / "-".join(names), examples, labels=labels)

    old = sorted(set(COLOURS) - {"white"})
    words = functools.partial(make_word_tokenizer, min_count=1)
    build = functools.partial(build_small_model, head=build_class_embedding_head)
    embed = functools.partial(embed_classes, texts=None, make_tokenizer=words)
    from mm_keras.data.make_features import make_features

    features = functools.partial(make_features, image_size=(16, 16), image_fit="stretch", text_fields=())
    train_small(draw(old), folder / "run", make_features=features, build_model=build, embed_classes=embed, epochs=8)
    (folder / "new.csv").write_text("label,description\nwhite,white\n")
    more = add_classes(folder / "run", folder / "new.csv", folder / "more")
    return more, draw(sorted(COLOURS), LabelVocabulary.load(more / "labels.txt"))


@pytest.mark.ci
def test_shots_make_an_added_class_known_and_old_ones_are_not_forgotten(added):
    report = measure_few_shots(*added, shots=(0, 10), repeats=1)
    rows = {(row["shots"], row["method"]): row for row in report["rows"]}
    assert report["classes_added"] == 1 and report["classes"] == 4
    assert rows[0, "linear head"]["new"] == [0.0]  # its outputs are zero, and a tie is no answer
    for method in ("fine-tuned", "linear head"):
        assert min(rows[10, method]["new"]) > 0.8, method
        assert min(rows[10, method]["old"]) > 0.8, method
    assert all(value == 1 for value in rows[10, "text and shots"]["new_among_new"])  # there is but one
    assert (added[0] / "report" / "few_shot.md").read_text().startswith("top-1 on split test; 1 classes added to 3")


def test_runs_without_added_classes_and_senseless_shots_are_refused(added, trained_run):
    with pytest.raises(ValueError, match="has no added classes"):
        measure_few_shots(trained_run, added[1])
    with pytest.raises(ValueError, match="shots are 0 and above"):
        measure_few_shots(*added, shots=(-1,))


def test_classes_are_held_out_by_seed(tmp_path):
    (tmp_path / "t.csv").write_text("label,description\n" + "".join(f"c{i},text {i}\n" for i in range(8)))
    new = hold_out_classes(tmp_path / "t.csv", tmp_path / "out")
    kept = (tmp_path / "out" / "labels.txt").read_text().split()
    assert len(new) == 2 and sorted([*new, *kept]) == [f"c{i}" for i in range(8)]
    assert (tmp_path / "out" / "new_classes.csv").read_text().splitlines()[1] == f"{new[0]},text {new[0][1:]}"
    assert hold_out_classes(tmp_path / "t.csv", tmp_path / "out") == new
    assert len({tuple(hold_out_classes(tmp_path / "t.csv", tmp_path / "out", seed=seed)) for seed in range(5)}) > 1
    with pytest.raises(ValueError, match=r"--fraction 0\.99 of 8 classes"):
        hold_out_classes(tmp_path / "t.csv", tmp_path / "out", 0.99)


def test_scores_are_of_new_and_old_examples_apart():
    is_new = np.array([False, False, True, True])
    logits = np.eye(4)[[0, 0, 0, 3]] + 0.1 * np.eye(4)[[1, 1, 2, 2]]
    scores = score_logits(logits, np.array([0, 1, 2, 3]), is_new)
    assert scores == {"new": 0.5, "new_among_new": 1.0, "old": 0.5, "harmonic": 0.5}
    drawn = draw_shots(Examples(np.zeros((10, 2)), np.array([0] * 7 + [1] * 2 + [3])), is_new, 3, np.random.default_rng(0))
    assert np.bincount(drawn.labels).tolist() == [3, 2, 0, 1]
