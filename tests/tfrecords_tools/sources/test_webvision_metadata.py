from collections import Counter

import pytest

from tests.tfrecords_tools.sources.read_webvision import read_webvision, texts_of
from tfrecords_tools.inspect.stats import compute_stats, format_stats
from tfrecords_tools.packing.pack import pack
from tfrecords_tools.sources import webvision_metadata
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.webvision import Options, make_source


def test_release_joins_texts_by_position(release):
    root = release()
    examples, rejections = read_webvision(root)
    assert rejections == []
    assert texts_of(examples) == {
        "google/q0001/abc.jpg": {"title": "Tench"},
        "google/q0001/def.jpg": {"title": "Tinca — Café", "description": "A fish & <b>more</b>"},
        "flickr/q0001/11.jpg": {"title": "My tench", "description": "At the lake", "tags": "fish, lake"},
        "flickr/q0001/12.jpg": {},
        "flickr/q0007/11.jpg": {"title": "Gold"},
        "val000001.jpg": {},
    }
    assert examples["flickr/q0007/11.jpg"].where == "train_filelist_all.txt:5"
    assert examples["flickr/q0007/11.jpg"].image == root / "flickr/q0007/11.jpg"
    assert examples["val000001.jpg"].image == root / "val_images_256/val000001.jpg"
    assert {e.split for e in examples.values()} == {"train", "val"}
    assert [examples[key].labels for key in ("flickr/q0007/11.jpg", "val000001.jpg")] == [["n01443537"]] * 2


@pytest.mark.parametrize("place", ["metadata/{}", "{source}_json/{file}"])
def test_metadata_may_lie_elsewhere_in_the_folder(release, place):
    root = release()
    for path in [*root.glob("google/*.json"), *root.glob("flickr/*.json")]:
        source, file = path.parent.name, path.name
        target = root / place.format(f"{source}/{file}", source=source, file=file)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    examples, rejections = read_webvision(root)
    assert rejections == []
    assert examples["google/q0001/abc.jpg"].texts == {"title": ["Tench"]}


def test_roots_of_images_and_metadata_may_be_given(release, tmp_path):
    root = release()
    (root / "google").rename(tmp_path / "google")
    examples, rejections = read_webvision(
        root, sources="google", splits=("train",), image_root=tmp_path, metadata_root=tmp_path
    )
    assert rejections == []
    assert examples["google/q0001/abc.jpg"].image == tmp_path / "google/q0001/abc.jpg"
    assert examples["google/q0001/abc.jpg"].texts == {"title": ["Tench"]}


def test_without_metadata_lists_texts_are_joined_by_id_within_the_query(release):
    root = release()
    for path in root.glob("info/train_meta_list_*"):
        path.unlink()
    examples, rejections = read_webvision(root, splits=("train",))
    assert rejections == []
    assert examples["flickr/q0001/11.jpg"].texts["title"] == ["My tench"]
    assert examples["flickr/q0007/11.jpg"].texts["title"] == ["Gold"]


def test_query_is_a_text_that_comes_from_the_label(release):
    source = make_source(Options(release(), fields=("title", "query")))
    assert source.text_fields == {"title": False, "query": True}
    texts = {example.id: example.texts for example in source.examples()}
    assert texts["google/q0001/abc.jpg"] == {"title": ["Tench"], "query": ["tench fish"]}
    assert texts["flickr/q0007/11.jpg"] == {"title": ["Gold"], "query": ["goldfish pond"]}


def test_queries_of_webvision_2_stand_in_one_file(release):
    root = release(**{"info/queries.txt": "1 one\n7 seven\n"})
    for path in root.glob("info/queries_*"):
        path.unlink()
    texts = [example.texts["query"] for example in read_webvision(root, fields=("query",), splits=("train",))[0].values()]
    assert texts == [["one"]] * 4 + [["seven"]]
    (root / "info/queries.txt").unlink()
    with pytest.raises(SourceError, match=r"queries_google.txt does not exist, nor queries.txt; leave the field 'query' out"):
        read_webvision(root, fields=("query",))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("google/q0001.json", None, "missing metadata: google/q0001.json does not exist"),
        ("google/q0001.json", "[{", "broken metadata: google/q0001.json: Expecting property name"),
        ("google/q0001.json", b'["\xff"]', "broken metadata: google/q0001.json: 'utf-8' codec can't decode"),
        ("google/q0001.json", {"abc": {}}, "broken metadata: google/q0001.json holds no list, but a dict"),
        ("google/q0001.json", [{}], "missing metadata: google/q0001.json has 1 entries, the metadata list asks for number 2"),
        ("google/q0001.json", [{}, "x"], "broken metadata: entry 2 of google/q0001.json is no object"),
        ("info/train_meta_list_google.txt", "google/q0001.json 1\ngoogle/q0001.json\n", "malformed line in the metadata list"),
        (
            "info/train_meta_list_google.txt",
            "google/q0001.json 1\ngoogle/q0002.json 1\n",
            "the metadata list pairs it with google/q0002.json, which belongs to another query",
        ),
    ],
)
def test_image_without_its_metadata_is_kept_and_told(release, file, content, reason):
    root = release(**({file: content} if content else {}))
    if content is None:
        (root / file).unlink()
    examples, rejections = read_webvision(root, sources="google", splits=("train",), fields=("title", "query"))
    example_id, where, told, action = rejections[-1]
    assert (example_id, where, action) == ("google/q0001/def.jpg", "train_filelist_google.txt:2", "kept without its texts")
    assert told.startswith(reason)
    assert set(examples) == {"google/q0001/abc.jpg", "google/q0001/def.jpg"}
    assert examples["google/q0001/def.jpg"].texts == {"query": ["tench fish"]}


def test_position_of_another_images_entry_is_told_and_the_id_decides(release):
    root = release(**{"info/train_meta_list_google.txt": "google/q0001.json 0\ngoogle/q0001.json 1\n"})  # counted from 0
    examples, rejections = read_webvision(root, sources="google", splits=("train",))
    assert [examples[f"google/q0001/{name}.jpg"].texts["title"] for name in ("abc", "def")] == [["Tench"], ["Tinca — Café"]]
    assert rejections[1] == (
        "google/q0001/def.jpg",
        "train_filelist_google.txt:2",
        "wrong metadata position: entry 1 of google/q0001.json is another image's",
        "kept with the texts of its id",
    )


def test_json_files_are_parsed_once_where_images_come_query_by_query(release, monkeypatch):
    opened = Counter()
    load = webvision_metadata.load_entries
    monkeypatch.setattr(webvision_metadata, "load_entries", lambda path, name: (opened.update([name]), load(path, name))[1])
    read_webvision(release(), splits=("train",))
    assert opened == {"google/q0001.json": 1, "flickr/q0001.json": 1, "flickr/q0007.json": 1}


def test_benchmark_joins_texts_by_id(benchmark):
    root = benchmark()
    examples, rejections = read_webvision(root)
    assert rejections == []
    assert texts_of(examples) == {
        "n01440764/abc.jpg": {"title": "Tench"},
        "n01440764/11.jpg": {"title": "My tench", "description": "At the lake", "tags": "fish, lake"},
        "n01443537/11.jpg": {"title": "My tench", "description": "At the lake", "tags": "fish, lake"},
        "n01443537/def.jpg": {"title": "Tinca — Café", "description": "A fish & <b>more</b>"},
        "val000001.jpg": {},
    }
    assert examples["n01443537/11.jpg"].labels == ["n01443537"]
    assert examples["n01443537/11.jpg"].image == root / "train/n01443537/11.jpg"
    assert examples["val000001.jpg"].image == root / "val/val000001.jpg"


def test_of_several_entries_of_an_id_the_first_counts(benchmark):
    entries = [{"title": "nobody's"}, 5, {"id": None}, {"id": 11, "title": "First"}, {"id": "11", "title": "Second"}]
    examples, rejections = read_webvision(benchmark(**{"flickr/q0000.json": entries}), splits=("train",))
    assert rejections == []
    assert examples["n01440764/11.jpg"].texts == {"title": ["First"]}


def test_benchmark_tells_images_without_metadata(benchmark):
    root = benchmark(**{"google/q0001.json": "[{"})
    examples, rejections = read_webvision(root, splits=("train",))
    assert len(examples) == 4
    assert [key for key, *_ in rejections] == ["n01440764/abc.jpg", "n01443537/def.jpg"]
    assert rejections[0][2].startswith(
        "missing metadata: no entry has the id 'abc'; 1 file(s) could not be read: broken metadata: google/q0001.json: "
    )


def test_benchmark_without_any_metadata_is_an_error_unless_no_texts_are_wanted(benchmark):
    root = benchmark()
    for path in root.glob("*/*.json"):
        path.unlink()
    with pytest.raises(SourceError, match=r"no google/\*\.json or flickr/\*\.json below .*--metadata_root"):
        read_webvision(root)
    assert len(read_webvision(root, fields=())[0]) == 5


def test_stats_tell_missing_metadata_by_source(release, tmp_path):
    pack(make_source(Options(release())), tmp_path / "out", progress=False)
    stats = compute_stats(tmp_path / "out", progress=False)
    third, two_thirds = pytest.approx(1 / 3), pytest.approx(2 / 3)
    google = {"image": 0.0, "title": 0.0, "description": 0.5, "tags": 1.0}
    flickr = {"image": 0.0, "title": third, "description": two_thirds, "tags": two_thirds}
    assert stats["train"]["missing_by_source"] == {
        "google": {"examples": 2, "missing": google},
        "flickr": {"examples": 3, "missing": flickr},
    }
    assert stats["val"]["missing_by_source"] == {}
    lines = format_stats(stats).splitlines()
    assert "  missing/flickr      image 0.0%, title 33.3%, description 66.7%, tags 66.7% of 3" in lines
