"""A bit of a file of a dataset folder flips, or it is cut off or lost: `verify` names the file, and so does what reads it."""

import random
import shutil

import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.inspect.verify import verify
from tfrecords_tools.packing.pack import PackError, PackOptions, pack
from tfrecords_tools.packing.shard_files import finished_shard
from tfrecords_tools.packing.staging import Staging
from tfrecords_tools.sources import sample
from tfrecords_tools.sources.example import Source, SourceExample

FILES = (
    *("checksums.sha256", "croissant.json", "dataset.json", "dataset_info.json", "features.json", "label-ids.labels.txt"),
    *("labels.txt", "rejected.jsonl", "index/test-00000-of-00001.parquet", "test-00000-of-00001.tfrecord"),
)


def _pack(folder, name="rows", **options):
    examples = [SourceExample(f"e{i}", f"rows:{i}", texts={"title": [f"text {i}"]}, labels=["ab"[i % 2]]) for i in range(12)]
    examples.append(SourceExample("e1", "rows:12", texts={"title": ["again"]}, labels=["a"]))
    settings = PackOptions(fractions={"train": 0.5, "test": 0.5}, workers=1, max_bad_fraction=0.5)
    return pack(Source(name, lambda: iter(examples), {"title": False}, False), folder, settings, progress=False, **options)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "data"
    _pack(folder)
    return folder


@pytest.fixture
def copied(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "data")


def test_the_table_lists_every_kind_of_file(packed):
    files = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    assert {file for file in files if "train" not in file} == set(FILES)


def test_120_of_120_flipped_bits_are_found(copied):
    draw = random.Random(13)
    for number in range(120):
        path = copied / FILES[number % len(FILES)]
        whole = path.read_bytes()
        place = draw.randrange(8 * len(whole))
        path.write_bytes(whole[: place // 8] + bytes([whole[place // 8] ^ 1 << place % 8]) + whole[place // 8 + 1 :])
        problems = verify(copied, progress=False)
        assert any(path.name in problem for problem in problems), (path.name, place, problems)
        path.write_bytes(whole)
    assert verify(copied, progress=False) == []


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_cut_off_or_lost_is_found(copied, name):
    path = copied / name
    path.write_bytes(path.read_bytes()[:-3])
    assert any(path.name in problem for problem in verify(copied, progress=False))
    path.unlink()
    if name == "dataset.json":
        with pytest.raises(FileNotFoundError, match=r"dataset\.json"):
            verify(copied, progress=False)
    else:
        assert any(path.name in problem for problem in verify(copied, progress=False))


@pytest.mark.parametrize("name", ["dataset.json", "labels.txt", "checksums.sha256"])
def test_reader_stops_at_a_damaged_description_and_says_what_to_do(copied, call, name):
    path = copied / name
    path.write_bytes(path.read_bytes().replace(b"a", b"e", 1))
    status, _, err = call(main, "stats", copied)
    assert status == 2
    assert err.startswith(f"tfrecords-tools: {path} is damaged: ")
    assert "Put back a copy" in err
    assert len(err.splitlines()) == 1


def test_change_on_purpose_can_be_accepted(copied, call):
    path = copied / "croissant.json"
    path.write_text(path.read_text().replace('"version"', '"license": "CC-BY-4.0", "version"'))
    assert call(main, "verify", copied)[0] == 1
    assert call(main, "verify", copied, "--accept")[0] == 0
    assert call(main, "verify", copied)[0] == 0


def test_dataset_without_checksums_is_read_and_told(copied, call):
    (copied / "checksums.sha256").unlink()
    assert DatasetInfo.load(copied)
    status, out, _ = call(main, "verify", copied)
    assert status == 1
    assert "checksums.sha256: missing" in out


@pytest.mark.parametrize("suffix", ["", ".json", "index"])
def test_resumed_pack_makes_a_damaged_shard_anew(tmp_path, suffix):
    class Killed(BaseException):
        pass

    def kill(job, plans):
        from tfrecords_tools.packing.pack import write_here

        yield from write_here(job, plans)
        raise Killed

    source = sample.make_source(40)
    options = PackOptions(fractions={"train": 1.0}, workers=1)
    with pytest.raises(Killed):
        pack(source, tmp_path / "data", options, progress=False, engine=kill)
    staging, name = Staging(tmp_path / "data").path, "train-00000-of-00001.tfrecord"
    path = staging / "index" / "train-00000-of-00001.parquet" if suffix == "index" else staging / (name + suffix)
    whole = path.read_bytes()
    assert finished_shard(staging, name)
    path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])  # of the same size
    assert finished_shard(staging, name) is None
    pack(source, tmp_path / "data", options, progress=False)
    assert verify(tmp_path / "data", progress=False) == []


@pytest.mark.parametrize("renamed", [1, 2])
def test_overwriting_that_is_killed_between_its_renames_loses_and_leaves_nothing(tmp_path, monkeypatch, renamed, capsys):
    class Killed(BaseException):
        pass

    old = _pack(tmp_path / "data", "old")
    names = []
    replace = type(tmp_path).replace

    def killed(path, target):
        if path.name in ("data", ".data.packing"):
            names.append(path.name)
            if len(names) == renamed:
                raise Killed
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(type(tmp_path), "replace", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        _pack(tmp_path / "data", "new", overwrite=True)
    with pytest.raises(PackError, match="already holds a dataset"):
        _pack(tmp_path / "data", "new")
    assert DatasetInfo.load(tmp_path / "data").provenance["source"] == old.provenance["source"]
    assert not list(tmp_path.glob(".data.old-*"))
    _pack(tmp_path / "data", "new", overwrite=True)
    assert DatasetInfo.load(tmp_path / "data").provenance["source"] == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert verify(tmp_path / "data", progress=False) == []
