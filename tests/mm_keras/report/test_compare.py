import json
import shutil

import pytest

from mm_keras.report.compare import compare


@pytest.mark.ci
def test_runs_are_compared_on_the_same_examples(tmp_path, trained_run, train_small, dataset, read_page, content):
    first = shutil.copytree(trained_run, tmp_path / "a" / "both")
    train_small(dataset, tmp_path / "b" / "both", modalities=("title",))
    page = read_page(compare([first, tmp_path / "b" / "both"], output=tmp_path / "out" / "comparison.html"))
    found = json.loads((tmp_path / "out" / "comparison_data" / "comparison.json").read_text("utf-8"))
    assert [row["run"] for row in found["runs"]] == ["a/both", "b/both"]
    values = {row["run"]: row["measures"]["accuracy"]["value"] for row in found["runs"]}
    assert values["a/both"] == pytest.approx(content["measures"]["accuracy"]["value"], abs=1e-6)
    (row,) = found["differences"]
    assert row["value"] == pytest.approx(values[row["first"]] - values[row["second"]], abs=1e-5)
    assert row["low"] <= row["value"] <= row["high"]
    assert row["first"] in page.text
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    figures = tmp_path / "out" / "comparison_data" / "figures"
    assert sorted(path.name for path in figures.iterdir()) == ["runs.svg", "sizes.svg"]
    assert "mathdefault" not in page.html  # figures hold no formulas
    assert (tmp_path / "out" / "comparison_data" / "tables" / "differences.csv").is_file()


def test_a_run_is_not_compared_with_itself_or_with_runs_of_other_labels(tmp_path, trained_run, multi_label_run):
    with pytest.raises(ValueError, match="two or more different runs"):
        compare([trained_run, trained_run])
    with pytest.raises(ValueError, match="name the dataset to compare on with --dataset"):
        compare([trained_run, multi_label_run])
