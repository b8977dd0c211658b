import json
from collections import Counter

import pytest

from tests.tfrecords_tools.sources.read_webvision import read_webvision
from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.packing.pack import pack
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.webvision import Options, make_source


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
    examples, _ = read_webvision(release(), sources=sources, splits=("train",))
    assert len(examples) == count
    assert all(sources == "all" or key.startswith(sources) for key in examples)


def test_google_and_flickr_lists_stand_in_for_a_missing_list_of_all(release):
    root = release()
    (root / "info/train_filelist_all.txt").unlink()
    assert len(read_webvision(root, splits=("train",))[0]) == 5


def test_first_classes_alone_are_read(release):
    source = make_source(Options(release(), num_classes=1))
    assert source.labels == ["n01440764"]
    examples = list(source.examples())
    assert [example.labels for example in examples] == [["n01440764"]] * 4


def test_lists_of_different_lengths_are_an_error_before_anything_is_read(release):
    root = release(**{"info/train_meta_list_all.txt": "google/q0001.json 1\n"})
    with pytest.raises(SourceError, match=r"train_filelist_all.txt has 5 lines, train_meta_list_all.txt has 1"):
        make_source(Options(root))


def test_lines_that_name_no_class_are_rejected(release):
    lines = "google/q0001/abc.jpg 4\ngoogle/q0001/def.jpg\n"
    examples, rejections = read_webvision(
        release(**{"info/train_filelist_google.txt": lines}), sources="google", splits=("train",)
    )
    assert examples == {}
    assert [(key, reason) for key, _, reason, _ in rejections] == [
        ("google/q0001/abc.jpg", "class 4 is none of the 4 in synsets.txt"),
        ("google/q0001/def.jpg", "no class in the line of 'google/q0001/def.jpg'"),
    ]


def test_test_images_have_no_labels(release):
    root = release(**{"info/test_filelist.txt": "test000001.jpg\n", "test_images_256/test000001.jpg": "x"})
    examples, rejections = read_webvision(root, splits=("test",))
    assert rejections == []
    assert examples["test000001.jpg"].labels == []
    assert examples["test000001.jpg"].image == root / "test_images_256/test000001.jpg"


def test_label_that_its_folder_contradicts_is_rejected(benchmark):
    examples, rejections = read_webvision(benchmark(**{"meta/train.txt": "n01440764/abc.jpg 1\n"}), splits=("train",))
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
    assert len(read_webvision(root, layout="release", splits=("train",))[0]) == 5
    assert len(read_webvision(root, layout="benchmark", splits=("train",))[0]) == 4


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
