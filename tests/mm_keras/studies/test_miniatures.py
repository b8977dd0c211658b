"""Each study runs from its first command to its results, on drawn data."""

import pytest

from mm_keras.cli.main import main
from mm_keras.cli.study import STUDIES

EXPECTED = {  # what stands in the results of each
    "webvision": "| MobileNetV2-BERT |",
    "imaged": "| by example, as the paper counts",
    "captions-relevance": "| products |",
    "multilabel-captions": "| stacked ",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_miniature_runs_to_its_results_and_is_not_done_twice(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", name, "--miniature"]) == 0, capsys.readouterr().err
    folder = tmp_path / "runs" / "studies" / f"{name}_miniature"
    out = capsys.readouterr().out
    assert EXPECTED[name] in (folder / "results.md").read_text("utf-8")
    assert "\nleft out: " not in out  # a step; rows may be, as those of held-out classes
    assert main(["study", name, "--miniature"]) == 0
    assert "$ " not in capsys.readouterr().out  # no command was run again


@pytest.mark.ci
def test_some_steps_of_a_miniature_run_to_a_table_and_are_not_done_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ["study", "multilabel-captions", "--miniature", "--set=train.epochs=1", "--only=draw,lstm_0"]
    assert main(few) == 0, capsys.readouterr().err
    results = (tmp_path / "runs/studies/multilabel-captions_miniature/results.md").read_text("utf-8")
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in results.splitlines() if line.startswith("|")}
    assert rows["lstm_0"] and not rows["two_lstms"]
    capsys.readouterr()
    assert main(few) == 0
    assert "$ " not in capsys.readouterr().out


@pytest.mark.parametrize("name", STUDIES)
def test_list_shows_every_step_of_the_study_itself(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", name, "--list"]) == 0
    out = capsys.readouterr().out
    assert "not given" in out and "(lacks " in out
    assert not list(tmp_path.iterdir())
    assert main(["study", name]) == 2  # nothing can be done without data
    assert "try --miniature" in capsys.readouterr().err
    assert main(["study", name, "--data=x=y"]) == 2
