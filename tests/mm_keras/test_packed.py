import os
import shutil

import pytest
from PIL import Image

from mm_keras.packed import sample_dataset, table_dataset
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.sources.sample import ceilings


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return sample_dataset(str(tmp_path_factory.mktemp("packed") / "sample"), num_examples=40, seed=3)


@pytest.fixture
def table(tmp_path, encode_image):
    """A table of 20 products; every second has a picture."""
    (tmp_path / "pictures").mkdir()
    lines = ["id,image,title,kind"]
    for index in range(20):
        picture = f"pictures/{index}.png" if index % 2 else ""
        if picture:
            (tmp_path / picture).write_bytes(encode_image(Image.new("RGB", (20, 20), (index, 0, 0)), "PNG"))
        lines.append(f"p{index},{picture},thing {index},{'red|round' if index % 3 else 'red'}")
    (tmp_path / "products.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "products.csv"


def _pack_table(table, **options):
    options = {"label": "kind", "folder": str(table.parent / "out"), "text": ("title",), "id": "id"} | options
    return table_dataset(str(table), **options)


def test_sample_is_packed_with_three_splits_and_its_ceilings(packed):
    info = DatasetInfo.load(packed)
    assert sum(info.num_examples(split) for split in ("train", "val", "test")) == 40
    assert info.ceilings == ceilings()


def test_packed_dataset_is_found_again(packed, capsys):
    assert sample_dataset(packed, num_examples=40, seed=3) == packed
    assert "packing" not in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"num_examples": 41}, {"seed": 4}, {"multi_label": True}])
def test_folder_with_another_sample_is_an_error(packed, change):
    with pytest.raises(ValueError, match=r"holds a dataset of another \w+: .*name another folder .*, or delete this one"):
        sample_dataset(packed, **({"num_examples": 40, "seed": 3} | change))


def test_table_is_packed_as_its_roles_say(table, capsys):
    info = DatasetInfo.load(_pack_table(table, fractions={"train": 0.5, "test": 0.5}))
    assert (set(info.splits), list(info.text_fields), info.multi_label) == ({"train", "test"}, ["title"], False)
    assert info.labels.names == ["red", "red|round"]
    assert sum(statistics["without_image"] for statistics in info.statistics.values()) == 10
    assert "packing table data into" in capsys.readouterr().out
    assert DatasetInfo.load(_pack_table(table, fractions={"train": 0.5, "test": 0.5})).provenance == info.provenance


def test_label_separator_makes_it_multi_label(table):
    info = DatasetInfo.load(_pack_table(table, label_separator="|"))
    assert info.multi_label
    assert info.labels.names == ["red", "round"]
    assert set(info.splits) == {"train", "val", "test"}


def test_changed_table_or_other_roles_are_an_error(table):
    _pack_table(table)
    with pytest.raises(ValueError, match="holds a dataset of another source_options"):
        _pack_table(table, text=())
    with pytest.raises(ValueError, match="holds a dataset of another fractions"):
        _pack_table(table, fractions={"train": 1.0})
    with open(table, "a", encoding="utf-8") as file:
        file.write("p20,,one more,red\n")
    with pytest.raises(ValueError, match="holds a dataset of another files"):
        _pack_table(table)
    shutil.rmtree(table.parent / "out")
    assert sum(map(DatasetInfo.load(_pack_table(table)).num_examples, ("train", "val", "test"))) == 21


def test_rows_that_were_left_out_are_told(table, capsys):
    with open(table, "a", encoding="utf-8") as file:
        file.write("p20,pictures/none.png,gone,red\n")
    _pack_table(table)
    assert "rejected.jsonl" in capsys.readouterr().out


def test_missing_column_is_an_error_and_packs_nothing(table):
    with pytest.raises(ValueError, match="'titel'"):
        _pack_table(table, text=("titel",))
    assert not (table.parent / "out").exists()


def test_table_packed_with_images_of_another_folder_is_an_error(table, tmp_path):
    _pack_table(table)
    with pytest.raises(ValueError, match="holds a dataset of another source_options"):
        _pack_table(table, image_root=str(tmp_path / "elsewhere"))


def _shrink(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: shutil.copy(folder / "pictures/1.png", folder / "pictures/0.png"),
            "then 10 of 11 were there, now 11 of 11",
        ),
        (lambda folder: (folder / "pictures/1.png").unlink(), "then 10 of 11 were there, now 9 of 11"),
        (lambda folder: _shrink(folder / "pictures/1.png"), "then 10 of 11 were there, now 10 of 11"),
        (lambda folder: os.utime(folder / "pictures/1.png", (1, 1)), "then 10 of 11 were there, now 10 of 11"),
    ],
    ids=["added", "removed", "resized", "touched"],
)
def test_images_that_changed_after_packing_are_seen(table, change, message):
    with open(table, "a", encoding="utf-8") as file:
        file.write("p20,pictures/0.png,to come,red\n")
    packed = _pack_table(table)
    assert _pack_table(table) == packed
    change(table.parent)
    with pytest.raises(ValueError, match=rf"was packed of other image files \({message}\); delete the folder to pack it anew"):
        _pack_table(table)
    assert _pack_table(table, check_images="none") == packed


def test_images_are_compared_by_content_where_that_is_asked(table):
    packed = _pack_table(table, check_images="content")
    os.utime(table.parent / "pictures/1.png", (1, 1))
    assert _pack_table(table, check_images="content") == packed
    shutil.copy(table.parent / "pictures/3.png", table.parent / "pictures/1.png")
    with pytest.raises(ValueError, match="of other image files"):
        _pack_table(table)
    shutil.rmtree(packed)
    _pack_table(table)
    with pytest.raises(ValueError, match="was packed without checksums of its image files"):
        _pack_table(table, check_images="content")


@pytest.mark.parametrize(
    "change", [{"label_separator": "|"}, {"first_image": True}, {"encoding": "cp1252"}, {"image_template": "pictures/{id}.png"}]
)
def test_dataset_that_was_read_otherwise_is_an_error(table, change):
    _pack_table(table)
    with pytest.raises(ValueError, match="holds a dataset of another source_options"):
        _pack_table(table, **change)


def test_unlabelled_rows_are_left_out_where_that_is_asked(table, capsys):
    with open(table, "a", encoding="utf-8") as file:
        file.write("p20,,no label,\n")
    info = DatasetInfo.load(_pack_table(table, unlabelled="leave_out"))
    assert sum(map(info.num_examples, info.splits)) == 20
    assert "1 without a label were left out, as asked" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a dataset of another unlabelled: leave_out"):
        _pack_table(table)


@pytest.mark.parametrize("others", ["test", "dev"])
def test_a_part_of_the_training_rows_is_held_out_where_no_row_is_for_validation(tmp_path, others):
    lines = [f"p{number},thing {number},{number % 2},{others if number < 20 else 'Train'}" for number in range(120)]
    (tmp_path / "parts.csv").write_text("\n".join(["id,title,kind,part", *lines]))
    folder = _pack_table(tmp_path / "parts.csv", image=None, split="part", hold_out=0.2)
    info = DatasetInfo.load(folder)
    sizes = {split: info.num_examples(split) for split in info.splits}
    assert sizes == ({"train": 80, "val": 20, "test": 20} if others == "test" else {"train": 100, "val": 20})
    assert _pack_table(tmp_path / "parts.csv", image=None, split="part", hold_out=0.2) == folder
    if others == "test":
        with pytest.raises(ValueError, match="holds a dataset of another"):
            _pack_table(tmp_path / "parts.csv", image=None, split="part")
