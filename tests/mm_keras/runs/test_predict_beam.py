"""Many examples are answered in parts, each exactly once."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf

from mm_keras.runs import predict_beam
from mm_keras.runs.predict_beam import MANIFEST, Model, estimate, predict_with_beam
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import ServingModule

pytest.importorskip("apache_beam")

RUNNER = ["--runner=DirectRunner", "--direct_running_mode=in_memory"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    """A run with an export, written without the comparison with the trained model."""
    run = shutil.copytree(trained_run / "baselines" / "title", tmp_path_factory.mktemp("beam") / "run")
    model, features = RunFolder(run).load_model()
    module = ServingModule(model, features)
    folder = run / "export" / "1"
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.signature()})
    (folder / "assets.extra").mkdir()
    features.save(folder / "assets.extra", with_models=False)
    (folder / "assets.extra" / "operations.json").write_text(json.dumps({"other_operations": []}))
    return run


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "new.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "title"])
        rows.writerows([number, "" if number == 4 else f"solid oak {number % 3}"] for number in range(10))
    return path


def _read(output):
    parts = sorted(output.glob("part-*.parquet"))
    return [row for part in parts for row in pyarrow.parquet.read_table(part).to_pylist()]


def test_each_row_is_answered_once_in_its_place(run, table, tmp_path):
    output = predict_with_beam(run, table, tmp_path / "answers", RUNNER, rows_per_part=4)
    names = sorted(path.name for path in output.iterdir())
    assert names == [*(f"part-{number:05d}-of-00003.parquet" for number in range(3)), MANIFEST]
    rows = _read(output)
    assert [row["id"] for row in rows] == [str(number) for number in range(10)]
    assert "none of the run's inputs" in rows[4]["error"] and rows[4]["labels"] is None
    served = tf.saved_model.load(Model.find(run).folder).signatures["serving_default"]
    expected = served(title=tf.constant(["solid oak 0"]))
    assert rows[0]["labels"] == [label.decode() for label in expected["labels"].numpy()[0]]
    np.testing.assert_allclose(rows[0]["probabilities"], expected["probabilities"][0], atol=1e-6)
    assert rows[3]["labels"] == rows[0]["labels"]


def test_a_run_that_was_stopped_goes_on_with_the_parts_that_are_missing(run, table, tmp_path, monkeypatch, capsys):
    output = predict_with_beam(run, table, tmp_path / "answers", RUNNER, rows_per_part=4)
    whole = _read(output)
    parts = sorted(output.glob("part-*"))
    parts[1].unlink()
    kept = parts[0].stat().st_mtime_ns
    capsys.readouterr()
    predict_with_beam(run, table, output, RUNNER, rows_per_part=4)
    assert "2 of 3 parts are there already" in capsys.readouterr().out
    assert _read(output) == whole
    assert parts[0].stat().st_mtime_ns == kept


def test_another_input_does_not_go_on_with_these_parts(run, table, tmp_path):
    output = predict_with_beam(run, table, tmp_path / "answers", RUNNER)
    table.write_text("id,title\n1,oak\n")
    with pytest.raises(FileExistsError, match="holds predictions of another input_sha256"):
        predict_with_beam(run, table, output, RUNNER)


def test_the_records_of_a_dataset_are_answered_shard_by_shard(run, dataset, tmp_path, read_split):
    output = predict_with_beam(run, dataset, tmp_path / "answers", RUNNER)
    ids = [row["id"] for row in _read(output)]
    assert len(ids) == len(set(ids)) == sum(len(read_split(dataset, split)) for split in ("train", "val", "test"))


def test_what_cannot_be_done_is_an_error(run, table, tmp_path):
    with pytest.raises(ValueError, match="Apache Beam knows no option --runer"):
        predict_with_beam(run, table, tmp_path / "answers", ["--runer=DirectRunner"])
    with pytest.raises(FileNotFoundError, match="holds no exported model: mm-keras export"):
        predict_with_beam(tmp_path, table, tmp_path / "answers", RUNNER)
    table.write_text("id,title\n1,\n")
    with pytest.raises(ValueError, match="nothing was predicted: all 1 rows are bad"):
        predict_with_beam(run, table, tmp_path / "answers", RUNNER)


def test_estimate_tells_hours(run, table):
    told = estimate(run, table, 14e6)
    assert "14,000,000 examples: " in told and "hours by one such process" in told


def test_model_is_loaded_once_a_process(run):
    model = Model.find(run)
    assert predict_beam.load_model(model) is predict_beam.load_model(Model.find(run / "export" / "1"))
