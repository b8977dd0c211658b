"""What an image column may reach: regular files below the folder of the images, and nothing of their content in a report."""

import json
import os

import pytest

from mm_keras.runs.predict import read_picture
from tests.faults import drawn_pictures as drawn
from tfrecords_tools.packing.images import ImageOptions
from tfrecords_tools.packing.pack import PackOptions, pack
from tfrecords_tools.sources import flickr, image_folder, table
from tfrecords_tools.sources.image_files import ImageFileError, read_image_file

PNG = drawn.READ_BY_ALL["png rgb"][0]
GOOD, OUTSIDE, NO_FILE = "", "lies outside of", "not a file"
CELLS = {  # what stands in the column -> what is said of it; where it is "lies outside of", `allow_outside` reads it
    "a.png": GOOD,
    "sub/../a.png": GOOD,
    "linked.png": GOOD,  # to a.png
    "{root}/a.png": GOOD,
    "{other}/b.png": OUTSIDE,
    "../other/b.png": OUTSIDE,
    "sub/../../other/b.png": OUTSIDE,
    "away.png": OUTSIDE,  # a link to ../other/b.png
    "door/b.png": OUTSIDE,  # door is a link to ../other
    "../other/secret.txt": OUTSIDE,
    "/dev/zero": OUTSIDE,
    "pipe.png": NO_FILE,
    "sub": NO_FILE,
    "sparse.png": "files of up to",
    "circle.png": "Too many levels of symbolic links",
    "gone.png": "does not exist",
    "secret.txt": "not a picture of a known format, but text",
    "secret.ppm": "broken image header",
    "a\0.png": "is no path: it holds a NUL",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    root, other = folder / "root", folder / "other"
    for path in (root / "sub", other):
        path.mkdir(parents=True)
    (root / "a.png").write_bytes(PNG)
    (other / "b.png").write_bytes(PNG)
    for place in (root, other):
        (place / "secret.txt").write_bytes(drawn.NO_PICTURES["text"])
    (root / "secret.ppm").write_bytes(drawn.NO_PICTURES["what looks like a ppm"])
    for name, target in (("linked.png", "a.png"), ("away.png", "../other/b.png"), ("door", "../other"), ("circle.png",) * 2):
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.png")
    with open(root / "sparse.png", "wb") as file:
        file.truncate(2**30)
    return root


def _named(cell, root):
    return cell.format(root=root, other=root.parent / "other")


def _pack(root, output, **options):
    rows = [{"id": cell, "image": _named(cell, root), "title": "a title", "split": "train"} for cell in CELLS]
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = table.Columns(image="image", text=("title",), id="id", split="split")
    source = table.make_source([root / "rows.jsonl"], columns)
    info = pack(source, output, PackOptions(workers=1, max_bad_fraction=1.0, **options), progress=False)
    text = (output / "rejected.jsonl").read_text("utf-8")
    assert drawn.SECRET + "\\n" not in text
    assert "root:" not in text
    return info, {line["id"]: line["reason"] for line in map(json.loads, text.splitlines())}


def test_packing_reads_what_lies_below_its_folder(root, tmp_path):
    info, reasons = _pack(root, tmp_path / "dataset")
    assert info.num_examples("train") == len(CELLS)  # each keeps its title
    assert set(reasons) == {cell for cell, said in CELLS.items() if said}
    for cell, reason in reasons.items():
        assert CELLS[cell] in reason, cell
        assert ("--allow_outside" in reason) == (CELLS[cell] == OUTSIDE)


def test_packing_reads_files_anywhere_where_that_is_allowed(root, tmp_path):
    _, reasons = _pack(root, tmp_path / "dataset", allow_outside=True)
    outside = {cell: reasons.get(cell, "") for cell, said in CELLS.items() if said == OUTSIDE}
    refused = {cell for cell, reason in outside.items() if reason}
    assert refused == {"/dev/zero", "../other/secret.txt"}
    assert "/dev/zero is a device, not a file" in outside["/dev/zero"]
    assert "pipe.png is a pipe, not a file" in reasons["pipe.png"]


@pytest.mark.parametrize("cell", CELLS)
def test_prediction_says_the_same(root, cell):
    path, options = root / _named(cell, root), ImageOptions()
    if CELLS[cell]:
        with pytest.raises((ValueError, OSError), match=r".") as caught:
            read_picture(path, options, [root])
        said = str(caught.value)
        assert CELLS[cell] in said or (CELLS[cell] == "does not exist" and "No such file" in said)
        assert "root:" not in said
    else:
        assert read_picture(path, options, [root])


def test_name_with_half_of_a_character_is_no_path(root):
    with pytest.raises(ImageFileError, match="is no path"):
        read_image_file(root / "a\ud83d.png", [root])


def test_names_in_other_sources_do_not_leave_their_folders_either(root, tmp_path):
    (tmp_path / "captions.txt").write_text("image,caption\na.png,A ramp.\n../other/b.png,Another.\n")
    (tmp_path / "images" / "ramp").mkdir(parents=True)
    (tmp_path / "images" / "ramp" / "away.png").symlink_to(root.parent / "other" / "b.png")
    options = PackOptions(workers=1, max_bad_fraction=1.0, fractions={"train": 1.0}, keep_without_image=False)
    sources = {"flickr": flickr.make_source(tmp_path / "captions.txt", root), "folder": image_folder.make_source(root.parent)}
    for name, source in sources.items():
        if name == "folder":
            (root.parent / "other" / "far.png").symlink_to(tmp_path / "images" / "ramp" / "away.png")  # and back in: good
            (root.parent / "other" / "out.png").symlink_to(tmp_path / "captions.txt")
        pack(source, tmp_path / name, options, progress=False)
        text = (tmp_path / name / "rejected.jsonl").read_text("utf-8")
        refused = {line["id"] for line in map(json.loads, text.splitlines()) if OUTSIDE in line["reason"]}
        assert refused == {"flickr": {"../other/b.png"}, "folder": {"other/out.png", "root/door/out.png"}}[name]


def test_relative_folder_is_that_of_the_working_folder_of_the_moment(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(name.encode())
        monkeypatch.chdir(tmp_path / name)
        assert read_image_file("a.jpg", ["."]) == name.encode()
