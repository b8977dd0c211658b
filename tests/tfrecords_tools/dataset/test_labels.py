import pytest

from tfrecords_tools.dataset.labels import LabelVocabulary


def test_numbers_inside_names_sort_as_numbers():
    names = ["q10", "q9", "10", "2", "b", "a", "q9", "a2b10", "a2b9"]
    assert LabelVocabulary.from_names(names).names == ["2", "10", "a", "a2b9", "a2b10", "b", "q9", "q10"]


def test_names_that_differ_only_in_leading_zeros_have_one_order():
    assert LabelVocabulary.from_names(["07", "7", "007"]).names == LabelVocabulary.from_names(["7", "007", "07"]).names


@pytest.mark.parametrize("names", [["b", "a", "ünï 🙂", "two words"], ["x\u2028y", "x\x85y"], []])
def test_saved_vocabulary_loads_as_it_was(tmp_path, names):
    LabelVocabulary(names).save(tmp_path / "labels.txt")
    assert LabelVocabulary.load(tmp_path / "labels.txt").names == names


def test_file_from_a_windows_editor_loads(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert LabelVocabulary.load(tmp_path / "labels.txt").names == ["cat", "dog"]


def test_ids_are_sorted_and_given_once():
    assert LabelVocabulary(["a", "b", "c"]).ids(["c", "a", "c"]) == (0, 2)


def test_unknown_label_is_named():
    with pytest.raises(ValueError, match="unknown label 'dgo'; the vocabulary holds 2 names"):
        LabelVocabulary(["cat", "dog"]).ids(["cat", "dgo"])


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "two\rlines"])
def test_name_that_is_no_line_is_rejected_with_its_line(name):
    with pytest.raises(ValueError, match=r"non-empty single lines.*at line 2"):
        LabelVocabulary(["a", name])


def test_repeated_name_is_rejected():
    with pytest.raises(ValueError, match=r"Repeated: \['a'\]"):
        LabelVocabulary(["a", "b", "a"])
