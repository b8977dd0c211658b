import json

import pytest

from mm_keras.runs.run_folder import FORMAT_VERSION, RunFolder, RunFolderError, SavedConfig


def test_facts_come_back_as_they_were_saved(tmp_path):
    run = RunFolder(tmp_path)
    run.save_facts(dataset="data/x", seed=3)
    assert run.facts() == {"dataset": "data/x", "seed": 3}
    assert json.loads((tmp_path / "run.json").read_text())["format_version"] == FORMAT_VERSION


@pytest.mark.parametrize("version", [None, FORMAT_VERSION + 1, "1"])
def test_run_of_another_version_is_refused(tmp_path, version):
    (tmp_path / "run.json").write_text(json.dumps({"format_version": version, "dataset": "data/x"}))
    with pytest.raises(
        RunFolderError, match=rf"run\.json has format_version {version!r}; this version reads {FORMAT_VERSION}\. "
    ):
        RunFolder(tmp_path).facts()


def test_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json does not exist: .* is no run folder"):
        RunFolder(tmp_path).facts()


def test_config_is_kept_as_two_files(tmp_path):
    RunFolder(tmp_path).save_config(SavedConfig("train.epochs = 3\n", "train.epochs = 3\ntrain.seed = 0\n"))
    assert (tmp_path / "config.gin").read_text() == "train.epochs = 3\n"
    assert (tmp_path / "operative_config.gin").read_text() == "train.epochs = 3\ntrain.seed = 0\n"


def test_dataset_that_has_gone_is_told_with_the_option_that_names_another(tmp_path):
    run = RunFolder(tmp_path)
    run.save_facts(dataset=str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"gone, on which .* was trained, is not there; name a dataset with --dataset"):
        run.dataset(None)
