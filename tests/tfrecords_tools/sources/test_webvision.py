import json
from collections import Counter

import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.inspect.stats import compute_stats, format_stats
from tfrecords_tools.packing.pack import pack
from tfrecords_tools.sources import webvision_metadata
from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.webvision import Options, make_source

SYNSETS = "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn02012849 crane\nn03126707 crane\n"
FLICKR = [
    {"id": "11", "title": "  My tench ", "description": "At the lake", "tags": ["fish", "lake"]},
    {"id": "12", "tags": []},
    {"id": "13", "title": "", "description": None, "tags": None, "views": 7},
]
GOOGLE = [
    {"id": "abc", "title": "Tench", "site": "x.org", "page_url": "http://x.org/p"},
    {"id": "def", "title": "Tinca — Café", "description": "A fish & <b>more</b>"},
]
LINES = {
    "google": [("google/q0001/abc.jpg", 0, "google/q0001.json 1"), ("google/q0001/def.jpg", 0, "google/q0001.json 2")],
    "flickr": [
        ("flickr/q0001/11.jpg", 0, "flickr/q0001.json 1"),
        ("flickr/q0001/12.jpg", 0, "flickr/q0001.json 2"),
        ("flickr/q0007/11.jpg", 1, "flickr/q0007.json 1"),  # another image of an equal base name
    ],
}


@pytest.fixture
def make_files(tmp_path, write):
    """A function: {path: text, JSON value or image bytes} -> the folder that holds them."""

    def make(files):
        for name, content in files.items():
            write(f"wv/{name}", content)
        return tmp_path / "wv"

    return make


@pytest.fixture
def release(make_files, small_jpeg):
    """A function: other files -> a WebVision 1.0 folder."""

    def make(**others):
        files = {"info/synsets.txt": SYNSETS, "info/val_filelist.txt": "val000001.jpg 1\n"}
        for name in ("google", "flickr", "all"):
            lines = LINES[name] if name in LINES else LINES["google"] + LINES["flickr"]
            files[f"info/train_filelist_{name}.txt"] = "".join(f"{path} {label}\n" for path, label, _ in lines)
            files[f"info/train_meta_list_{name}.txt"] = "".join(f"{meta}\n" for _, _, meta in lines)
            files |= {path: small_jpeg for path, _, _ in lines}
        files["val_images_256/val000001.jpg"] = small_jpeg
        files |= {
            "google/q0001.json": GOOGLE,
            "flickr/q0001.json": FLICKR,
            "flickr/q0007.json": [{"id": "11", "title": "Gold"}],
        }
        files |= {"info/queries_google.txt": "1 tench fish\n", "info/queries_flickr.txt": "1 tench\n7 goldfish pond\n"}
        return make_files(files | others)

    return make


@pytest.fixture
def benchmark(make_files, small_jpeg):
    """A function: other files -> the layout of the WebVision 2.0 benchmark."""

    def make(**others):
        paths = {"n01440764/abc.jpg": 0, "n01440764/11.jpg": 0, "n01443537/11.jpg": 1, "n01443537/def.jpg": 1}
        files = {
            "meta/synsets.txt": "".join(f"{line.split()[0]}\n" for line in SYNSETS.splitlines()),
            "meta/train.txt": "".join(f"{path} {label}\n" for path, label in paths.items()),
            "meta/val.txt": "val000001.jpg 1\n",
            "val/val000001.jpg": small_jpeg,
            "google/q0001.json": GOOGLE,
            "flickr/q0001.json": FLICKR,
            "flickr/q0009.json": FLICKR[:1],  # the same image, found by another query
        }
        return make_files(files | {f"train/{path}": small_jpeg for path in paths} | others)

    return make


def _read(root, **options):
    rows = list(make_source(Options(root, **options)).examples())
    examples = {row.id: row for row in rows if isinstance(row, SourceExample)}
    return examples, [(row.id, row.where, row.reason, row.action) for row in rows if isinstance(row, Rejection)]


def _texts(examples):
    return {example_id: {field: texts for field, (texts,) in e.texts.items()} for example_id, e in examples.items()}


def test_release_joins_texts_by_position(release):
    root = release()
    examples, rejections = _read(root)
    assert rejections == []
    assert _texts(examples) == {
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


def test_labels_are_all_synsets_in_their_order(release, tmp_path):
    source = make_source(Options(release(**{"info/synsets.txt": "n9 x\nn1 y\nn5 z\n"})))
    assert source.labels == ["n9", "n1", "n5"]
    info = pack(source, tmp_path / "out", progress=False)
    assert info.labels.names == ["n9", "n1", "n5"]
    assert {split: info.num_examples(split) for split in info.splits if info.shards(split)} == {"train": 5, "val": 1}


def test_class_names_as_labels_are_distinct(release):
    assert make_source(Options(release(), label_names=True)).labels == [
        "tench",
        "goldfish",
        "crane (n02012849)",
        "crane (n03126707)",
    ]


@pytest.mark.parametrize(("sources", "count"), [("google", 2), ("flickr", 3), ("all", 5)])
def test_sources_are_chosen(release, sources, count):
    examples, _ = _read(release(), sources=sources, splits=("train",))
    assert len(examples) == count
    assert all(sources == "all" or key.startswith(sources) for key in examples)


def test_google_and_flickr_lists_stand_in_for_a_missing_list_of_all(release):
    root = release()
    (root / "info/train_filelist_all.txt").unlink()
    assert len(_read(root, splits=("train",))[0]) == 5


def test_first_classes_alone_are_read(release):
    source = make_source(Options(release(), num_classes=1))
    assert source.labels == ["n01440764"]
    examples = list(source.examples())
    assert [example.labels for example in examples] == [["n01440764"]] * 4


@pytest.mark.parametrize("place", ["metadata/{}", "{source}_json/{file}"])
def test_metadata_may_lie_elsewhere_in_the_folder(release, place):
    root = release()
    for path in [*root.glob("google/*.json"), *root.glob("flickr/*.json")]:
        source, file = path.parent.name, path.name
        target = root / place.format(f"{source}/{file}", source=source, file=file)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    examples, rejections = _read(root)
    assert rejections == []
    assert examples["google/q0001/abc.jpg"].texts == {"title": ["Tench"]}


def test_roots_of_images_and_metadata_may_be_given(release, tmp_path):
    root = release()
    (root / "google").rename(tmp_path / "google")
    examples, rejections = _read(root, sources="google", splits=("train",), image_root=tmp_path, metadata_root=tmp_path)
    assert rejections == []
    assert examples["google/q0001/abc.jpg"].image == tmp_path / "google/q0001/abc.jpg"
    assert examples["google/q0001/abc.jpg"].texts == {"title": ["Tench"]}


def test_without_metadata_lists_texts_are_joined_by_id_within_the_query(release):
    root = release()
    for path in root.glob("info/train_meta_list_*"):
        path.unlink()
    examples, rejections = _read(root, splits=("train",))
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
    texts = [example.texts["query"] for example in _read(root, fields=("query",), splits=("train",))[0].values()]
    assert texts == [["one"]] * 4 + [["seven"]]
    (root / "info/queries.txt").unlink()
    with pytest.raises(SourceError, match=r"queries_google.txt does not exist, nor queries.txt; leave the field 'query' out"):
        _read(root, fields=("query",))


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
    examples, rejections = _read(root, sources="google", splits=("train",), fields=("title", "query"))
    example_id, where, told, action = rejections[-1]
    assert (example_id, where, action) == ("google/q0001/def.jpg", "train_filelist_google.txt:2", "kept without its texts")
    assert told.startswith(reason)
    assert set(examples) == {"google/q0001/abc.jpg", "google/q0001/def.jpg"}
    assert examples["google/q0001/def.jpg"].texts == {"query": ["tench fish"]}


def test_position_of_another_images_entry_is_told_and_the_id_decides(release):
    root = release(**{"info/train_meta_list_google.txt": "google/q0001.json 0\ngoogle/q0001.json 1\n"})  # counted from 0
    examples, rejections = _read(root, sources="google", splits=("train",))
    assert [examples[f"google/q0001/{name}.jpg"].texts["title"] for name in ("abc", "def")] == [["Tench"], ["Tinca — Café"]]
    assert rejections[1] == (
        "google/q0001/def.jpg",
        "train_filelist_google.txt:2",
        "wrong metadata position: entry 1 of google/q0001.json is another image's",
        "kept with the texts of its id",
    )


def test_json_files_are_parsed_once_where_images_come_query_by_query(release, monkeypatch):
    opened = Counter()
    load = webvision_metadata._load
    monkeypatch.setattr(webvision_metadata, "_load", lambda path, name: (opened.update([name]), load(path, name))[1])
    _read(release(), splits=("train",))
    assert opened == {"google/q0001.json": 1, "flickr/q0001.json": 1, "flickr/q0007.json": 1}


def test_lists_of_different_lengths_are_an_error_before_anything_is_read(release):
    root = release(**{"info/train_meta_list_all.txt": "google/q0001.json 1\n"})
    with pytest.raises(SourceError, match=r"train_filelist_all.txt has 5 lines, train_meta_list_all.txt has 1"):
        make_source(Options(root))


def test_lines_that_name_no_class_are_rejected(release):
    lines = "google/q0001/abc.jpg 4\ngoogle/q0001/def.jpg\n"
    examples, rejections = _read(release(**{"info/train_filelist_google.txt": lines}), sources="google", splits=("train",))
    assert examples == {}
    assert [(key, reason) for key, _, reason, _ in rejections] == [
        ("google/q0001/abc.jpg", "class 4 is none of the 4 in synsets.txt"),
        ("google/q0001/def.jpg", "no class in the line of 'google/q0001/def.jpg'"),
    ]


def test_test_images_have_no_labels(release):
    root = release(**{"info/test_filelist.txt": "test000001.jpg\n", "test_images_256/test000001.jpg": "x"})
    examples, rejections = _read(root, splits=("test",))
    assert rejections == []
    assert examples["test000001.jpg"].labels == []
    assert examples["test000001.jpg"].image == root / "test_images_256/test000001.jpg"


def test_benchmark_joins_texts_by_id(benchmark):
    root = benchmark()
    examples, rejections = _read(root)
    assert rejections == []
    assert _texts(examples) == {
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
    examples, rejections = _read(benchmark(**{"flickr/q0000.json": entries}), splits=("train",))
    assert rejections == []
    assert examples["n01440764/11.jpg"].texts == {"title": ["First"]}


def test_benchmark_tells_images_without_metadata(benchmark):
    root = benchmark(**{"google/q0001.json": "[{"})
    examples, rejections = _read(root, splits=("train",))
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
        _read(root)
    assert len(_read(root, fields=())[0]) == 5


def test_label_that_its_folder_contradicts_is_rejected(benchmark):
    examples, rejections = _read(benchmark(**{"meta/train.txt": "n01440764/abc.jpg 1\n"}), splits=("train",))
    assert examples == {}
    assert rejections[0][2] == "class 1 is n01443537, but the image lies in n01440764/"


def test_repeated_line_is_one_record(benchmark, tmp_path, small_jpeg):
    lines = "n01440764/abc.jpg 0\n" * 2 + "".join(f"n01443537/{i}.jpg 1\n" for i in range(10))
    files = {f"train/n01443537/{i}.jpg": small_jpeg for i in range(10)}
    root = benchmark(**{"meta/train.txt": lines} | files)
    info = pack(make_source(Options(root, splits=("train",), fields=())), tmp_path / "out", progress=False)
    assert info.num_examples("train") == 11
    assert "duplicate id 'n01440764/abc.jpg'" in (tmp_path / "out/rejected.jsonl").read_text()


def test_holdout_takes_4_percent_of_each_class(make_files):
    lines = [f"n01440764/{i}.jpg 0" for i in range(100)] + [f"n01443537/{i}.jpg 1" for i in range(50)]
    synsets = "n01440764\nn01443537\nn02012849\n"
    root = make_files({"meta/synsets.txt": synsets, "meta/train.txt": "\n".join(lines)})
    source = make_source(Options(root, holdout=0.04, fields=()))
    counts = Counter((example.labels[0], example.split) for example in source.examples())
    assert counts == {
        ("n01440764", "train"): 96,
        ("n01440764", "val"): 2,
        ("n01440764", "test"): 2,
        ("n01443537", "train"): 48,
        ("n01443537", "val"): 1,
        ("n01443537", "test"): 1,
    }
    other = make_source(Options(root, holdout=0.04, fields=(), seed=1))
    assert {e.id for e in other.examples() if e.split != "train"} != {e.id for e in source.examples() if e.split != "train"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "2.0"}, "layout must be one of release, benchmark. Received: '2.0'"),
        ({"splits": ("dev",)}, "splits must be of train, val, test. Received: 'dev'"),
        ({"fields": ("caption",)}, "fields must be of title, description, tags, query. Received: 'caption'"),
        ({"sources": "bing"}, "sources must be one of all, google, flickr. Received: 'bing'"),
        ({"holdout": 0.04, "splits": ("train", "val")}, "a holdout makes val and test"),
        ({"num_classes": 0}, "num_classes must be at least 1. Received: 0"),
    ],
)
def test_options_that_cannot_be_are_errors(release, options, message):
    with pytest.raises(SourceError, match=message):
        make_source(Options(release(), **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sources": "google"}, "lists all sources together"), ({"fields": ("query",)}, "leave the field 'query' out")],
)
def test_options_that_the_benchmark_layout_has_no_data_for_are_errors(benchmark, options, message):
    with pytest.raises(SourceError, match=message):
        make_source(Options(benchmark(), **options))


def test_folder_that_is_no_webvision_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"holds neither info/ \(the release\) nor meta/"):
        make_source(Options(tmp_path))


def test_folder_of_both_layouts_is_read_as_said(release, benchmark):
    root = release()
    benchmark()
    with pytest.raises(SourceError, match=r"holds both info/ .* and meta/ .*; say which \(--layout\)"):
        make_source(Options(root))
    assert len(_read(root, layout="release", splits=("train",))[0]) == 5
    assert len(_read(root, layout="benchmark", splits=("train",))[0]) == 4


def test_provenance_names_options_and_lists_but_no_folders(release, tmp_path):
    source = make_source(Options(release(), image_root=tmp_path))
    assert [path.name for path in source.files] == [
        "synsets.txt",
        "train_filelist_all.txt",
        "train_meta_list_all.txt",
        "val_filelist.txt",
    ]
    assert str(tmp_path) not in json.dumps(source.options)
    assert (source.options["layout"], source.options["sources"]) == ("release", "all")


def test_command_line_packs_it(release, tmp_path, capsys):
    arguments = ["--splits=train", "--sources=flickr", "--fields=title,tags", "--label_names", f"--output={tmp_path / 'out'}"]
    assert main(["pack", "webvision", str(release()), *arguments]) == 0
    assert "3 examples (train 3), 4 labels" in capsys.readouterr().out
    info = DatasetInfo.load(tmp_path / "out")
    assert info.text_fields == {"title": False, "tags": False}
    assert info.labels.names[:2] == ["tench", "goldfish"]


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
