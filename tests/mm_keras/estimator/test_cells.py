import base64
import io
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from mm_keras.estimator.cells import image_cell, text_cell
from mm_keras.estimator.labels import LabelCodec, split_cell

RED = Image.new("RGB", (4, 3), "red")


def _encoded() -> bytes:
    buffer = io.BytesIO()
    RED.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("a/b.jpg", "a/b.jpg"),
        (Path("a/b.jpg"), "a/b.jpg"),
        (b"bytes", b"bytes"),
        (bytearray(b"bytes"), b"bytes"),
        ({"bytes": b"bytes", "path": "b.jpg"}, b"bytes"),
        ({"bytes": None, "path": "b.jpg"}, "b.jpg"),
        *[
            (missing, None)
            for missing in (None, np.nan, np.float32("nan"), pandas.NA, pandas.NaT, "", " ", b"", {"bytes": None, "path": None})
        ],
    ],
)
def test_image_cells(cell, expected):
    assert image_cell(cell) == expected


@pytest.mark.parametrize("cell", [RED, np.asarray(RED), np.asarray(RED.convert("L")), np.asarray(RED.convert("RGBA"))])
def test_pictures_in_memory_become_the_same_pixels(cell):
    pixels = Image.open(io.BytesIO(image_cell(cell)))
    np.testing.assert_array_equal(np.asarray(pixels), np.asarray(cell))


def test_base64_is_read_where_it_is_asked_for():
    text = base64.b64encode(_encoded()).decode()
    assert image_cell(text, is_base64=True) == image_cell(f"data:image/png;base64,{text}", is_base64=True) == _encoded()
    with pytest.raises(ValueError, match=r"should be base64 is not: it begins with 'a/b\.jpg'"):
        image_cell("a/b.jpg", is_base64=True)


@pytest.mark.parametrize("cell", [3, np.zeros((2, 2, 3)), np.zeros((2, 2, 2), np.uint8), ["a.jpg"]])
def test_other_image_cells_are_errors(cell):
    with pytest.raises(ValueError, match=r"an image (cell|array) is .* Received: "):
        image_cell(cell)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("oak", "oak"), (3, "3"), (0, "0"), (2.5, "2.5"), (None, ""), (np.nan, ""), (["a", None, "b"], ["a", "b"])],
)
def test_text_cells(cell, expected):
    assert text_cell(cell) == expected


@pytest.mark.parametrize(
    ("cell", "separator", "expected"),
    [
        ("a|b", "|", ["a", "b"]),
        ("a | ", "|", ["a"]),
        ("a|b", None, ["a|b"]),
        (["a", "b"], None, ["a", "b"]),
        (np.int64(3), None, [3]),
        (3.0, None, [3]),  # an integer that stood beside an empty cell
        (None, None, None),
        (np.nan, "|", None),
        ([], "|", []),
    ],
)
def test_label_cells(cell, separator, expected):
    assert split_cell(cell, separator) == expected


@pytest.mark.parametrize(
    ("labels", "classes", "dtype"),
    [
        (["b", "a"], ["a", "b"], object),
        ([10, 9], [9, 10], np.int64),
        ([True, False], [False, True], bool),
        ([1, "x"], [1, "x"], object),
    ],
)
def test_classes_keep_their_type_and_are_sorted(labels, classes, dtype):
    codec = LabelCodec.learn([[label] for label in labels], multi_label=False)
    assert codec.classes.tolist() == classes and codec.classes.dtype == dtype
    assert [codec.name(label) for label in classes] == list(codec.names)


def test_labels_that_cannot_be_told_apart_are_errors():
    with pytest.raises(ValueError, match="the labels hold '1' as int and as str"):
        LabelCodec.learn([[1], ["1"]], multi_label=False)
    with pytest.raises(ValueError, match=r"at least two classes apart; the labels have 1: \['a'\]"):
        LabelCodec.learn([["a"]], multi_label=False)
    with pytest.raises(ValueError, match=r"knows no class 'c'; it knows \['a', 'b'\]"):
        LabelCodec.learn([["a"], ["b"]], multi_label=False).name("c")
