import json
import re
import subprocess
import sys

import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.sources.command import find_commands

SOURCES = [["pack", command.name] for command in find_commands()]
COLLECT = [["collect", kind] for kind in ("images", "open_images", "wikipedia", "check_texts")]
COMMANDS = [[], ["pack"], *SOURCES, ["inspect"], ["verify"], ["stats"], ["collect"], *COLLECT]

_PROGRESS = re.compile(r"(/s|s/ \w+)\]$")  # how a progress bar ends


@pytest.fixture
def run(call):
    """A function: (arguments) -> exit status, standard output, standard error without progress bars."""

    def apply(*arguments):
        status, out, err = call(main, *arguments)
        lines = err.replace("\r", "\n").splitlines()
        return status, out, "\n".join(line for line in lines if line and not _PROGRESS.search(line))

    return apply


@pytest.fixture
def catalogue(tmp_path, small_jpeg):
    """A table of 20 rows with a picture each, in tmp_path."""
    (tmp_path / "pics").mkdir()
    rows = ["id,picture,title,about,category"]
    for i in range(20):
        (tmp_path / "pics" / f"{i}.jpg").write_bytes(small_jpeg)
        rows.append(f"g{i},pics/{i}.jpg,Thing {i},about {i},{['red', 'round'][i % 2]}")
    (tmp_path / "goods.csv").write_text("\n".join(rows))
    return tmp_path / "goods.csv"


def test_table_packs_as_its_options_say(run, catalogue, tmp_path):
    status, out, _ = run(
        *(
            "pack",
            "table",
            catalogue,
            "--output",
            tmp_path / "out",
            "--image=picture",
            "--text=title,about",
            "--label=category",
        ),
        *("--id=id", "--fractions=train=0.5,test=0.5", "--seed=3", "--short_side=16", "--quality=50", "--examples_per_shard=4"),
        *("--derived_from_label=about", "--bad_images=reject", "--workers=1"),
    )
    assert status == 0
    assert "20 examples (train " in out
    assert "2 labels, in " in out
    info = DatasetInfo.load(tmp_path / "out")
    assert (info.labels.names, info.multi_label) == (["red", "round"], False)
    assert info.text_fields == {"title": False, "about": True}
    assert set(info.splits) == {"train", "test"}
    assert info.images == {"short_side": 16, "quality": 50, "max_pixels": 50_000_000}
    assert info.provenance["pack_options"] == {
        "fractions": {"train": 0.5, "test": 0.5},
        "stratify": None,
        "seed": 3,
        "examples_per_shard": 4,
        "keep_without_image": False,
        "max_bad_fraction": 0.2,
        "unlabelled": "keep",
        "check_images": "time",
        "allow_outside": False,
    }


def test_rejected_rows_are_counted_and_their_report_is_named(run, catalogue, tmp_path):
    (tmp_path / "pics" / "3.jpg").unlink()
    (tmp_path / "pics" / "4.jpg").write_bytes(b"<html>")
    arguments = ("pack", "table", catalogue, "--output", tmp_path / "out", "--image=picture", "--text=title")
    status, out, _ = run(*arguments)
    assert status == 0
    assert f"  2 kept without its image: see {tmp_path / 'out' / 'rejected.jsonl'}" in out.splitlines()


def test_given_labels_file_and_passthrough_are_used(run, catalogue, tmp_path):
    (tmp_path / "names.txt").write_text("round\nred\nother\n")
    status, _, _ = run(
        *("pack", "table", catalogue, "--output", tmp_path / "out", "--image=picture", "--label=category"),
        *("--labels", tmp_path / "names.txt", "--passthrough"),
    )
    assert status == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert info.labels.names == ["round", "red", "other"]
    assert info.images["short_side"] is None


def test_label_separator_makes_the_dataset_multi_label(run, tmp_path):
    (tmp_path / "t.csv").write_text("Caption,Labels\na b,1 19\nc,2\n")
    status, _, _ = run(
        *("pack", "table", tmp_path / "t.csv", "--text=Caption", "--label=Labels", "--label_separator= "),
        *("--output", tmp_path / "out", "--fractions=train=1"),
    )
    assert status == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert (info.labels.names, info.multi_label) == (["1", "2", "19"], True)


def test_sample_packs_verifies_and_counts(run, tmp_path):
    status, out, _ = run("pack", "sample", "--num_examples=100", "--sample_seed=2", "--multi_label", "--output", tmp_path / "s")
    assert status == 0
    assert "100 examples" in out
    assert DatasetInfo.load(tmp_path / "s").provenance["source_options"] == {
        "num_examples": 100,
        "seed": 2,
        "multi_label": True,
    }
    assert run("verify", tmp_path / "s")[:2] == (0, f"{tmp_path / 's'}: everything is as dataset.json says\n")
    status, out, _ = run("stats", tmp_path / "s")
    assert status == 0
    assert out.startswith("train: ")
    assert "  labels_per_example  min 2  median 2  p95 2  max 2" in out.splitlines()
    status, out, _ = run("stats", tmp_path / "s", "--json")
    assert status == 0
    assert sum(split["examples"] for split in json.loads(out).values()) == 100


def test_verify_lists_problems_and_fails(run, dataset):
    shard = next(dataset.glob("test-*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-1])
    (dataset / "x.tfrecord").write_bytes(b"")
    status, out, _ = run("verify", dataset)
    assert status == 1
    assert out.splitlines()[0] == "x.tfrecord: not listed in dataset.json"
    assert out.splitlines()[-1] == f"{dataset}: 3 problem(s)"


def test_inspect_prints_the_first_records_of_the_first_split(run, dataset):
    status, out, _ = run("inspect", dataset, "--num=3")
    assert status == 0
    first = next(iter(DatasetInfo.load(dataset).splits))
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert len(heads) == 3
    assert all(line.endswith(f"[{first}]") for line in heads)
    assert "  image        40x30, " in out


def test_inspect_shows_one_record_by_its_id(run, dataset, small_jpeg):
    status, out, _ = run("inspect", dataset, "--split=test", "--id=e7")
    assert status == 0
    assert out.splitlines() == [
        "e7  [test]",
        f"  image        40x30, {len(small_jpeg)} bytes",
        "  title        title of e7",
        "  labels       b",
    ]


@pytest.mark.parametrize(("example_id", "split"), [("e7", "test"), ("e20", "train")])
def test_inspect_finds_an_id_in_any_split(run, dataset, example_id, split):
    status, out, _ = run("inspect", dataset, "--id", example_id)
    assert status == 0
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [f"{example_id}  [{split}]"]


def test_inspect_says_when_no_record_has_the_id(run, dataset):
    assert run("inspect", dataset, "--split=test", "--id=e20") == (1, "", "no record with the id 'e20' in test")
    assert run("inspect", dataset, "--id=x")[0] == 1


def test_inspect_writes_images_out(run, dataset, tmp_path, small_jpeg):
    assert run("inspect", dataset, "--images", tmp_path / "deep" / "pics", "--num=2")[0] == 0
    written = sorted((tmp_path / "deep" / "pics").iterdir())
    assert [path.name for path in written] == ["00000.jpg", "00001.jpg"]
    assert written[0].read_bytes() == small_jpeg


@pytest.mark.parametrize("selection", [["--num=2"], ["--id"]])
def test_inspect_reads_no_further_than_it_must(run, dataset, read_split, selection):
    if selection == ["--id"]:
        selection = [f"--id={read_split(dataset, 'test')[0].id}"]
    shard = next(dataset.glob("test-*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1  # the last record is corrupt
    shard.write_bytes(data)
    assert run("inspect", dataset, "--split=test", *selection)[0] == 0
    assert run("inspect", dataset, "--split=test", "--num=10")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "{tmp}"], "is no dataset folder"),
        (["verify", "{tmp}/nowhere"], "is no dataset folder"),
        (["stats", "{tmp}"], "is no dataset folder"),
        (["inspect", "{dataset}", "--split=dev"], "has no split 'dev'; it has ['test', 'train']"),
        (["pack", "sample", "--output={dataset}"], "already holds a dataset; pass --overwrite"),
        (["pack", "sample", "--output={tmp}/x", "--num_examples=0"], "num_examples must be positive. Received: 0"),
        (["pack", "sample", "--output={tmp}/x", "--fractions=a=2"], "add up to 1"),
        (["pack", "sample", "--output={tmp}/x", "--quality=0"], "quality must be within 1–100. Received: 0"),
        (["pack", "sample", "--output={tmp}/x", "--examples_per_shard=0"], "examples_per_shard must be at least 1"),
        (["pack", "sample", "--output={tmp}/x", "--labels={tmp}/none.txt"], "No such file"),
        (["pack", "table", "{tmp}/none.csv", "--text=t", "--output={tmp}/x"], "none.csv does not exist"),
        (["pack", "table", "{tmp}/goods.csv", "--text=t", "--output={tmp}/x"], "has no column 't'; its columns are ['id', "),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(run, dataset, catalogue, tmp_path, arguments, message):
    places = {"tmp": tmp_path, "dataset": dataset}
    status, out, err = run(*(argument.format(**places) for argument in arguments))
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("tfrecords-tools: ")
    assert err.count("\n") == 0
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["pak"], "invalid choice: 'pak'"),
        (["pack", "tabel"], "invalid choice: 'tabel'"),
        (["pack", "sample"], "required: --output"),
        (["pack", "sample", "--output=x", "--seeed=1"], "unrecognized arguments: --seeed=1"),
        (["pack", "sample", "--output=x", "--seed=one"], "invalid int value: 'one'"),
        (["inspect", "x", "--num=0"], "must be a positive number. Received: '0'"),
        (["verify"], "required: folder"),
    ],
)
def test_wrong_call_exits_2_with_what_is_wrong(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_printed(run, command):
    status, out, _ = run(*command, "--help")
    assert status == 0
    assert out.startswith(f"usage: {' '.join(['tfrecords-tools', *command])}")


def test_importing_the_command_line_is_cheap_and_module_runs():
    script = (
        "import sys, tfrecords_tools.cli.main; print(*{'tensorflow', 'cv2', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert loaded.stdout == "\n"
    helped = subprocess.run([sys.executable, "-m", "tfrecords_tools", "--help"], check=True, capture_output=True, text=True)
    assert helped.stdout.startswith("usage: tfrecords-tools ")


def test_packing_and_verifying_need_no_tensorflow(tmp_path):
    script = (
        "import sys; from tfrecords_tools.cli.main import main; folder = sys.argv[1];"
        "assert main(['pack', 'sample', '--num_examples=20', '--output', folder]) == main(['verify', folder]) == 0;"
        "print(*{'tensorflow', 'keras'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path / "s"], check=True, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == ""
