import io
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tfrecords_tools.sources.sample import ITEMS, MATERIALS, RATES, ceilings, iter_examples, make_source

NUM = 1600
CLASSES = [(item, material) for item in ITEMS for material in MATERIALS]


@pytest.fixture(scope="module")
def drawn():
    return list(iter_examples(NUM, seed=0))


def _truth(index):
    """The class that example `index` was drawn from; its label may be wrong."""
    return CLASSES[index % len(CLASSES)]


def _told(texts):
    """The material whose phrase occurs in any of the texts, or None."""
    text = " ".join(texts).lower()
    found = {material for material, phrases in MATERIALS.items() if any(phrase in text for phrase in phrases)}
    assert len(found) <= 1
    return found.pop() if found else None


def _assert_rate(count, total, rate):
    assert abs(count / total - rate) < 3 * math.sqrt(rate * (1 - rate) / total)


def test_drawing_again_gives_the_same_examples(drawn):
    assert list(iter_examples(50, seed=0)) == drawn[:50]


def test_example_depends_on_its_own_index_alone(drawn):
    assert list(itertools.islice(iter_examples(10**9, seed=0), 20)) == drawn[:20]


def test_another_seed_draws_other_examples(drawn):
    other = list(iter_examples(20, seed=1))
    assert all(a.image != b.image and a.id != b.id for a, b in zip(drawn, other, strict=False))


def test_ids_are_distinct(drawn):
    assert len({example.id for example in drawn}) == NUM


def test_images_are_jpegs_of_the_promised_sizes(drawn):
    for example in drawn[:40]:
        image = Image.open(io.BytesIO(example.image))
        assert image.format == "JPEG"
        assert all(96 <= side <= 128 for side in image.size)
        assert np.asarray(image).std() > 5  # something is drawn on it


def test_classes_are_balanced(drawn):
    counts = Counter(example.labels[0] for example in drawn)
    assert set(counts) == {f"{material} {item}" for item, material in CLASSES}
    assert max(abs(count - NUM / len(CLASSES)) for count in counts.values()) <= 15  # balanced but for wrong labels


def test_text_never_names_the_item(drawn):
    for example in drawn:
        text = f"{example.texts['title'][0]} {example.texts['description'][0]}".lower()
        assert not any(item in text for item in ITEMS)


def test_text_never_tells_another_material(drawn):
    for index, example in enumerate(drawn):
        for texts in example.texts.values():
            assert _told(texts) in (None, _truth(index)[1])


def test_text_is_missing_at_the_promised_rates(drawn):
    for field in ("title", "description"):
        missing = sum(not example.texts[field][0] for example in drawn)
        _assert_rate(missing, NUM, RATES[f"{field}_missing"])


def test_text_tells_the_material_at_the_promised_rates(drawn):
    irrelevant, silent = RATES["title_irrelevant"], RATES["title_silent"]
    titles = (1 - RATES["title_missing"] - irrelevant) * (1 - silent)
    _assert_rate(sum(_told(example.texts["title"]) is not None for example in drawn), NUM, titles)
    descriptions = 1 - RATES["description_missing"] - RATES["description_irrelevant"]
    _assert_rate(sum(_told(example.texts["description"]) is not None for example in drawn), NUM, descriptions)


def test_silent_titles_have_their_rate_and_tell_nothing(drawn):
    silent = [example for example in drawn if "series, no." in example.texts["title"][0]]
    _assert_rate(len(silent), NUM, (1 - RATES["title_missing"] - RATES["title_irrelevant"]) * RATES["title_silent"])
    assert all(_told(example.texts["title"]) is None for example in silent)


def test_labels_are_wrong_at_the_promised_rate(drawn):
    wrong = sum(example.labels != [" ".join(reversed(_truth(index)))] for index, example in enumerate(drawn))
    _assert_rate(wrong, NUM, RATES["wrong_label"])


@pytest.mark.parametrize(
    ("modality", "sees_image", "fields"),
    [
        ("image", True, ()),
        ("title", False, ("title",)),
        ("description", False, ("description",)),
        ("all texts", False, ("title", "description")),
        ("all inputs", True, ("title", "description")),
    ],
)
def test_ceilings_are_what_the_best_guess_reaches(drawn, modality, sees_image, fields):
    """The best guess: the item where the image is seen, the material where a text tells it, the rest by chance.

    Instead of drawing that chance, each example counts with the probability that its label is guessed.
    """
    chances = []
    for index, example in enumerate(drawn):
        told = _told([text for field in fields for text in example.texts[field]])
        guesses = [
            f"{material} {item}"
            for item, material in CLASSES
            if (not sees_image or item == _truth(index)[0]) and told in (None, material)
        ]
        chances.append(example.labels[0] in guesses and 1 / len(guesses))
    assert abs(np.mean(chances) - ceilings()[modality]) < 3 * np.std(chances) / math.sqrt(NUM)


def test_ceilings_rise_with_what_is_seen():
    reached = ceilings()
    assert reached["title"] < reached["all texts"] < reached["image"] < reached["all inputs"] < 1 - RATES["wrong_label"]
    assert reached["description"] < reached["all texts"]


def test_multi_label_example_has_the_tags_of_its_item_and_material():
    source = make_source(400, multi_label=True)
    assert source.multi_label
    assert source.ceilings == {}
    wrong = 0
    for index, example in enumerate(source.examples()):
        item, material = example.labels
        assert item in ITEMS
        assert material in MATERIALS
        wrong += (item != _truth(index)[0]) + (material != _truth(index)[1])
    assert 0 < wrong < 40  # 16 expected


def test_multi_label_variant_shows_the_same_pictures_and_texts(drawn):
    for example, other in zip(iter_examples(20, 0, multi_label=True), drawn, strict=False):
        assert (example.image, example.texts) == (other.image, other.texts)


def test_source_declares_ceilings_and_fields():
    source = make_source(10)
    assert source.text_fields == {"title": False, "description": False}
    assert source.ceilings == ceilings()
    assert source.options == {"num_examples": 10, "seed": 0, "multi_label": False}


def test_drawing_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"num_examples must be positive\. Received: 0"):
        make_source(0)
