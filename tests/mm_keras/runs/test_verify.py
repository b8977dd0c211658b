"""A bit of a file of a run folder flips, or it is cut off or lost: `verify` names the file, and so does what reads it."""

import random
import shutil

import pytest

from mm_keras.cli.main import main
from mm_keras.features import FeatureSpec
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.thresholds import load_thresholds
from mm_keras.runs.verify import accept, verify
from mm_keras.training.training_setup import check_setup
from tfrecords_tools.dataset import checksums
from tfrecords_tools.dataset.atomic_file import write_text

READERS = {  # file -> what reads it
    "run.json": lambda run: run.facts(),
    "features.json": lambda run: FeatureSpec.load(run.path),
    "vocabulary_0.txt": lambda run: FeatureSpec.load(run.path),
    "checkpoints/best.keras": lambda run: run.load_model(),
    "training.json": lambda run: check_setup(run.setup, {}),
    "metrics.jsonl": lambda run: run.check(),
    "thresholds.json": lambda run: load_thresholds(run, FeatureSpec.load(run.path)),
    "checksums.sha256": lambda run: run.facts(),
}


@pytest.fixture
def run(trained_run, tmp_path):
    """A run folder with a baseline, and with what further commands leave: a report, thresholds, an export."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "report").mkdir()
    write_text(run / "report" / "evaluation.json", '{"rows": []}')
    write_text(run / "thresholds.json", '{"split": "val", "thresholds": {}}')
    exported = run / "export" / "1"
    (exported / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (exported / name).write_bytes(random.Random(name).randbytes(1000))
    checksums.begin(exported, "mm-keras verify", ["saved_model.pb", "variables/variables.index"])
    return run


def _flip(path, place):
    whole = path.read_bytes()
    path.write_bytes(whole[: place // 8] + bytes([whole[place // 8] ^ 1 << place % 8]) + whole[place // 8 + 1 :])
    return whole


def test_trained_run_is_whole(run):
    assert verify(run) == []
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {*READERS, "baselines/title/run.json", "baselines/title/checksums.sha256"} <= files
    assert any(file.startswith("tensorboard/") for file in files)


def test_120_of_120_flipped_bits_are_found(run):
    draw = random.Random(13)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    for number in range(120):
        path = files[number % len(files)]
        whole = _flip(path, draw.randrange(8 * path.stat().st_size))
        problems = verify(run)
        assert len(problems) == 1
        assert problems[0].startswith(f"{path.relative_to(run).as_posix()}: is damaged")
        path.write_bytes(whole)
    assert verify(run) == []


@pytest.mark.parametrize("name", ["run.json", "checkpoints/best.keras", "checksums.sha256", "export/1/saved_model.pb"])
def test_file_that_is_lost_is_found(run, name):
    (run / name).unlink()
    assert [problem.partition(":")[0] for problem in verify(run)] == [name]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:9] + data[10:]]
)
def test_reader_of_a_damaged_file_names_it_and_says_what_to_do(run, name, damage):
    path = run / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(checksums.DamagedFileError, match=rf"{path} is damaged: .*Put back a copy.*verify.* --accept") as caught:
        READERS[name](RunFolder(run))
    assert "\n" not in str(caught.value)


def test_vocabulary_that_lost_a_line_gives_no_answers(run, call):
    path = run / "vocabulary_0.txt"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:5] + lines[6:]), "utf-8")
    status, out, err = call(main, "predict", run, "--text=title=oak")
    assert (status, out) == (2, "")
    assert err.startswith(f"mm-keras: {path} is damaged: ")
    assert len(err.splitlines()) == 1


def test_thresholds_that_are_lost_are_not_taken_for_those_of_an_untuned_run(run):
    (run / "thresholds.json").unlink()
    with pytest.raises(checksums.DamagedFileError, match=r"thresholds\.json is missing, though checksums\.sha256 lists it"):
        load_thresholds(RunFolder(run), FeatureSpec.load(run))


@pytest.mark.parametrize("name", ["run.json", "features.json", "checkpoints/best.keras", "training.json"])
def test_run_without_checksums_names_a_file_that_is_cut_off(run, name):
    (run / "checksums.sha256").unlink()
    path = run / name
    assert READERS[name](RunFolder(run)) if name != "training.json" else True
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(checksums.DamagedFileError, match=rf"{path} is cut off or damaged: .*\. Put back a copy"):
        READERS[name](RunFolder(run))


def test_command_tells_each_problem_and_takes_a_change_on_purpose(run, call):
    assert call(main, "verify", run)[:2] == (0, f"{run}: every file is what was written\n")
    assert call(main, "verify", run / "export" / "1")[0] == 0
    path = run / "vocabulary_0.txt"
    path.write_text(path.read_text("utf-8").replace("oak", "elm"), "utf-8")
    (run / "report" / "notes.md").write_text("by hand")
    status, out, _ = call(main, "verify", run)
    assert status == 1
    assert [line.partition(" is ")[0] for line in out.splitlines()[:2]] == [
        "vocabulary_0.txt:",
        "report/notes.md: stands in no checksum: a process was killed as it wrote it, or it",
    ]
    assert out.splitlines()[2] == f"{run}: 2 problem(s)"
    assert call(main, "verify", run, "--accept")[0] == 0
    assert FeatureSpec.load(run)


def test_run_of_an_older_version_gets_checksums_when_asked(run):
    for path in list(run.rglob("checksums.sha256")):
        path.unlink()
    assert [problem.partition(": missing")[0] for problem in verify(run)] == [
        "checksums.sha256",
        "baselines/title/checksums.sha256",
        "export/1/checksums.sha256",
    ]
    accept(run)
    assert verify(run) == []
    _flip(run / "baselines" / "title" / "run.json", 77)
    assert len(verify(run)) == 1


def test_event_file_of_a_run_that_was_killed_has_checksums_of_its_own(run):
    path = next(run.glob("tensorboard/*/events*"))
    whole = path.read_bytes()
    checksums.forget(path)
    path.write_bytes(whole)
    assert verify(run) == []
    _flip(path, 8 * len(whole) // 2)
    assert [problem.partition(": is damaged: record ")[0] for problem in verify(run)] == [path.relative_to(run).as_posix()]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder: None, FileNotFoundError, "is no run folder and no export"),
        (lambda folder: (folder / "dataset.json").touch(), ValueError, "check it with: tfrecords-tools verify"),
    ],
)
def test_other_folders_are_told(tmp_path, make, error, message):
    make(tmp_path)
    with pytest.raises(error, match=message):
        verify(tmp_path)
