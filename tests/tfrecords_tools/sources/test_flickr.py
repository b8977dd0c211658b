import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.sources.example import Rejection, SourceExample
from tfrecords_tools.sources.files import SourceError
from tfrecords_tools.sources.flickr import make_source

TOKEN = (
    "1.jpg#0\tA dog runs .\r\n"
    "2.jpg#0\tA #1 fan\twith a tab .\r\n"
    "1.jpg#1\tA brown dog .\r\n"
    "2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway .\r\n"
    "a#b.jpg#4\tOdd name .\r\n"
)
KAGGLE = 'image,caption\n1.jpg,"A dog , ""Rex"" , runs ."\n1.jpg,A brown dog .\n2.jpg,A fan .\n'
PIPED = "image_name| comment_number| comment\n1.jpg| 0| A dog | runs .\n1.jpg| 1| A brown dog .\n2.jpg| 4   A fan .\n"
KARPATHY = {
    "images": [
        {"sentids": [0, 1], "filename": "1.jpg", "split": "train", "sentences": [{"tokens": ["a"], "raw": " A dog ."}] * 2},
        {"filepath": "val2014", "filename": "2.jpg", "split": "restval", "cocoid": 7, "sentences": [{"raw": "A fan ."}]},
    ],
    "dataset": "coco",
}


def _read(path, split_lists=None):
    rows = list(make_source(path, path.parent / "images", split_lists).examples())
    captions = {row.id: row.texts["caption"] for row in rows if isinstance(row, SourceExample)}
    return captions, [(row.id, row.where, row.reason) for row in rows if isinstance(row, Rejection)]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_token_lines_are_split_at_the_first_tab_and_the_last_hash(write, mark):
    captions, rejections = _read(write("Flickr8k.token.txt", mark + TOKEN))
    assert rejections == []
    assert captions == {
        "1.jpg": ["A dog runs .", "A brown dog ."],
        "2.jpg": ["A #1 fan\twith a tab ."],
        "2258277193_586949ec62.jpg.1": ["people waiting for the subway ."],
        "a#b.jpg": ["Odd name ."],
    }


def test_captions_of_kaggle_are_csv(write):
    captions, rejections = _read(write("captions.txt", KAGGLE))
    assert (captions, rejections) == ({"1.jpg": ['A dog , "Rex" , runs .', "A brown dog ."], "2.jpg": ["A fan ."]}, [])


def test_results_of_kaggle_are_split_at_pipes_and_a_row_without_one_is_rejected(write):
    captions, rejections = _read(write("results.csv", PIPED))
    assert captions == {"1.jpg": ["A dog | runs .", "A brown dog ."]}
    assert rejections == [("", "results.csv:4", "expected 3 fields between |: '2.jpg| 4   A fan .'")]


@pytest.mark.parametrize("line", ["1.jpg\tA dog", "1.jpg#0 A dog", "#0\tA dog", "1.jpg#0"])
def test_line_that_is_no_token_line_is_rejected(write, line):
    captions, rejections = _read(write("t.token", f"0.jpg#0\tA cat\n{line}\n"))
    assert captions == {"0.jpg": ["A cat"]}
    assert rejections[0][1] == "t.token:2"
    assert "expected name#number, a tab and a caption" in rejections[0][2]


def test_splits_come_from_lists_and_what_is_in_none_is_told(write):
    lists = {"train": write("train.txt", "1.jpg\r\n3.jpg\r\n"), "val": write("dev.txt", "2.jpg\n")}
    path = write("t.token", TOKEN)
    rows = list(make_source(path, path.parent, lists).examples())
    assert {row.id: row.split for row in rows if isinstance(row, SourceExample)} == {"1.jpg": "train", "2.jpg": "val"}
    assert _read(path, lists)[1] == [
        ("2258277193_586949ec62.jpg.1", "t.token:4", "in none of the split lists"),
        ("a#b.jpg", "t.token:5", "in none of the split lists"),
        ("3.jpg", "train.txt", "has no captions in t.token"),
    ]


def test_name_in_two_lists_is_an_error(write):
    lists = {"train": write("train.txt", "1.jpg\n"), "val": write("dev.txt", "2.jpg\n1.jpg\n")}
    with pytest.raises(SourceError, match=r"dev.txt:2: '1.jpg' is in the list of 'train' too"):
        make_source(write("t.token", TOKEN), lists["train"].parent, lists)


def test_karpathy_files_have_their_own_splits(write, tmp_path):
    path = write("dataset_coco.json", KARPATHY)
    rows = list(make_source(path, tmp_path / "images").examples())
    assert rows == [
        SourceExample(
            "1.jpg",
            "dataset_coco.json: image 1",
            tmp_path / "images/1.jpg",
            {"caption": ["A dog ."] * 2},
            split="train",
        ),
        SourceExample(
            "val2014/2.jpg",
            "dataset_coco.json: image 2",
            tmp_path / "images/val2014/2.jpg",
            {"caption": ["A fan ."]},
            split="restval",
        ),
    ]
    with pytest.raises(SourceError, match="has its own splits"):
        make_source(path, tmp_path, {"train": path})


def test_broken_karpathy_items_are_rejected(write):
    content = {"images": [{"filename": "1.jpg", "split": "train"}, 5, KARPATHY["images"][0]]}
    captions, rejections = _read(write("k.json", content))
    assert list(captions) == ["1.jpg"]
    assert [where for _, where, _ in rejections] == ["k.json: image 1", "k.json: image 2"]
    assert rejections[0][2].startswith("not as in Karpathy's files: KeyError: 'sentences'")
    with pytest.raises(SourceError, match="is no Karpathy file"):
        _read(write("k.json", {"a": []}))


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"none\.token does not exist"):
        make_source(tmp_path / "none.token", tmp_path)


def test_command_line_packs_captions_without_their_image_too(write, tmp_path, small_jpeg, read_split):
    (tmp_path / "images").mkdir()
    lines = TOKEN + "".join(f"{i}.jpg#0\tCaption .\n" for i in range(3, 12))
    for name in ("a#b.jpg", *(f"{i}.jpg" for i in range(1, 12))):
        (tmp_path / "images" / name).write_bytes(small_jpeg)
    train = write("train.txt", "\n".join(dict.fromkeys(line.split("#")[0] for line in lines.splitlines() if "a#b" not in line)))
    val = write("val.txt", "a#b.jpg\n")
    arguments = [f"--images={tmp_path / 'images'}", f"--split_list=train={train}", f"--split_list=val={val}"]
    assert main(["pack", "flickr", str(write("t.token", lines)), *arguments, f"--output={tmp_path / 'out'}"]) == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert info.provenance["rejected"] == {"kept without its image": 1}
    records = {record.id: record for record in read_split(tmp_path / "out", "train")}
    assert len(records) == 12
    assert records["2258277193_586949ec62.jpg.1"].image == b""
    assert records["1.jpg"].texts == {"caption": ("A dog runs .", "A brown dog .")}


def test_split_given_twice_is_an_error(tmp_path, capsys):
    lists = ["--split_list=train=a", "--split_list=train=b"]
    assert main(["pack", "flickr", "x", "--images=y", *lists, f"--output={tmp_path / 'out'}"]) == 2
    assert "given twice for 'train': a and b" in capsys.readouterr().err
