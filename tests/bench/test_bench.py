"""The benches run, on a few drawn pictures and without most peers, and say what they measured."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def _run(script, *arguments):
    """Lines that a bench printed, as objects."""
    command = [sys.executable, BENCH / script, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_packing_is_measured_beside_pillow_and_a_missing_peer_is_told():
    no_python = f"--img2dataset_python={shutil.which('false')}"
    lines = _run("pack.py", "--num=8", "--repeats=2", "--peers=pillow,img2dataset", no_python)
    skipped, *rates, ratios = lines
    assert skipped["what"].startswith("img2dataset")
    assert (skipped["skipped"], "pip install img2dataset" in skipped["install"]) == ("not installed", True)
    assert [line["what"].split()[0] for line in rates] == ["tfrecords_tools.packing.pack,"] * (len(rates) - 1) + ["Pillow"]
    for line in rates:
        assert line["images"] == 8
        assert line["images_per_second"] > 0
        assert line["mb_per_second"] > 0
        assert 0.8 < line["ssim"] < 1
    assert rates[0]["ssim"] > rates[-1]["ssim"]
    assert ratios["what"] == rates[-2]["what"]
    expected = rates[-2]["images_per_second"] / rates[-1]["images_per_second"]
    assert abs(ratios["ratio_to"]["Pillow loop, 1 process"] / expected - 1) < 0.05


@pytest.mark.slow
def test_reading_is_measured_beside_keras_and_a_missing_peer_is_told():
    no_python = f"--webdataset_python={shutil.which('false')}"
    skipped, *lines = _run("read.py", "--num=70", "--repeats=1", "--peers=keras,webdataset", no_python)
    assert skipped["what"] == "webdataset, Pillow"
    assert (skipped["skipped"], "pip install webdataset" in skipped["install"]) == ("not installed", True)
    rates = {line["what"]: line["images_per_second"] for line in lines if "images" in line}
    ratios = {line["what"]: line["ratio_to"] for line in lines if "ratio_to" in line}
    kinds = ("training batches", "training batches, not augmented", "evaluation batches")
    assert set(ratios) == {f"{records}: {kind}" for records in ("packed", "originals") for kind in kinds}
    assert min(rates.values()) > 0
    for what, beside in ratios.items():
        alone = what.split(":")[0] + ": decoding alone"
        assert set(beside) == {"keras image_dataset_from_directory", alone, f"{alone}, nothing handed out"}
        assert abs(beside[alone] - rates[what] / rates[alone]) < 0.02


def test_unknown_peer_is_an_error_that_lists_the_known():
    command = [sys.executable, BENCH / "pack.py", "--peers=pillow,pilow"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown ['pilow']; there are ['pillow', 'tfds', 'tfds_opencv', 'img2dataset']" in done.stderr
