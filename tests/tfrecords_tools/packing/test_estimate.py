import re

import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.info import DatasetInfo
from tfrecords_tools.packing.spool import EmptySourceError
from tfrecords_tools.sources.example import Rejection


def _numbers(pattern, text):
    return [float(number.replace(",", "")) for number in re.search(pattern, text).groups()]


@pytest.mark.ci
def test_estimate_of_a_source_agrees_with_what_packing_it_makes(call, tmp_path):
    status, out, _ = call(main, "pack", "sample", "--num_examples=1200", f"--output={tmp_path / 'sample'}", "--estimate")
    assert status == 0
    assert not (tmp_path / "sample").exists()
    call(main, "pack", "sample", "--num_examples=1200", f"--output={tmp_path / 'sample'}")
    info = DatasetInfo.load(tmp_path / "sample")
    size = sum(shard.num_bytes for split in info.splits for shard in info.shards(split))
    (kilobytes,) = _numbers(r"([\d.]+) KB a record, 100\.0% of the input kept", out)
    assert kilobytes * 1e3 * 1200 == pytest.approx(size, rel=0.05)
    assert "1,200 examples read" in out
    assert "\n1,200 examples would take about\n" in out


def test_estimate_for_more_examples_than_there_are_scales_everything(call, tmp_path):
    arguments = ["pack", "sample", "--num_examples=300", f"--output={tmp_path / 'sample'}"]
    outputs = [call(main, *arguments, f"--estimate={count}")[1] for count in ("14e6", "28_000_000")]
    sizes = [_numbers(r"([\d.]+) GB for the dataset, in ([\d,]+) shards", out) for out in outputs]
    assert sizes[1][0] == pytest.approx(2 * sizes[0][0], rel=0.02)
    assert (sizes[0][1], sizes[1][1]) == (7000, 14000)
    assert re.search(r"\d+:\d\d:\d\d to pack with \d worker\(s\), as fast as these; .* by 16, .* by 256", outputs[0])


def test_estimate_counts_what_would_be_left_out(make_source, make_example):
    from tfrecords_tools.packing.estimate import estimate
    from tfrecords_tools.packing.pack import PackOptions

    rows = [make_example(f"e{i}") if i % 4 else Rejection("", f"rows:{i}", "malformed row") for i in range(400)]
    assert "75.0% of the input kept" in estimate(make_source(rows), PackOptions(), None, progress=False)
    with pytest.raises(EmptySourceError):
        estimate(make_source([]), PackOptions(), None, progress=False)


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5"])
def test_estimate_for_no_number_is_an_error(call, tmp_path, count):
    status, _, error = call(main, "pack", "sample", f"--output={tmp_path}", f"--estimate={count}")
    assert status == 2
    assert "must be a positive number" in error
