"""evaluate, predict, export, add-classes and fuse need nothing but run folders."""

import json

import pytest


def test_run_folder_alone_can_be_evaluated(run, moved_run):
    status, out, err = run("evaluate", "moved", "--split=val")
    assert status == 0, err
    assert "split val" in out
    assert (moved_run / "report" / "evaluation.json").is_file()


def test_config_binds_what_evaluation_has_no_option_for(run, moved_run, tiny_config):
    status, out, err = run("evaluate", "moved", f"--config={tiny_config}", "--set=evaluate.split='val'")
    assert (status, "split val" in out) == (0, True), err


def test_run_folder_alone_can_predict(run, moved_run):
    status, out, err = run("predict", "moved", "--text=title=Solid oak = good")
    assert status == 0, err
    assert len(out.splitlines()) == 5
    (moved_run.parent / "new.jsonl").write_text('{"title": "oak"}\n{"titel": "oak"}\n')
    status, out, _ = run("predict", "moved", "new.jsonl")
    assert status == 0
    assert "1 predictions, 1 bad lines" in out
    status, _, err = run("predict", "moved", "--text=titel=oak")
    assert (status, "no input 'titel'" in err) == (2, True)


@pytest.mark.slow  # the README's export of runs/short is the one by default
def test_run_folder_alone_can_be_exported(run, moved_run):
    status, out, err = run("export", "moved")
    assert status == 0, err
    assert "equal to the trained model on 32 records" in out
    assert (moved_run / "export" / "1" / "saved_model.pb").is_file()


@pytest.mark.ci
def test_runs_are_fused_and_not_overwritten_unasked(run, moved_run, trained_run):
    fuse = ("fuse", "moved", trained_run, "--output=fused", "--method=vote")
    status, out, err = run(*fuse)
    assert (status, "2 runs fused by vote" in out) == (0, True), err
    assert (moved_run.parent / "fused" / "late_fusion.json").is_file()
    status, _, err = run(*fuse)
    assert (status, "already holds a run" in err) == (2, True), err
    assert run(*fuse, "--overwrite")[0] == 0
    status, out, err = run("predict", "fused", "--text=title=Solid oak")
    assert (status, len(out.splitlines())) == (0, 5), err


@pytest.mark.ci
def test_class_is_added_from_its_text_and_predicted(run, classes_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.jsonl").write_text('{"label": "oak stool", "text": "oak stool"}\n')
    status, out, err = run("add-classes", classes_run, "new.jsonl", "--output=more")
    assert status == 0, err
    labels = json.loads((classes_run / "features.json").read_text())["labels"]
    assert f"more: 1 classes added to {len(labels)}" in out
    assert json.loads((tmp_path / "more" / "features.json").read_text())["labels"] == [*labels, "oak stool"]
    status, out, err = run("evaluate", "more")
    assert (status, "| title " in out) == (0, True), err
    status, _, err = run("predict", "more", "--text=title=Solid oak")
    assert status == 0, err
