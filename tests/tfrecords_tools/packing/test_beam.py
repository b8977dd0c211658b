import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from tfrecords_tools.cli.main import main
from tfrecords_tools.packing.pack import PackError, PackOptions, pack
from tfrecords_tools.packing.shard_files import finished_shard
from tfrecords_tools.sources.example import Rejection

pytest.importorskip("apache_beam", reason="Apache Beam is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside Beam

OPTIONS = PackOptions(examples_per_shard=10, max_bad_fraction=0.5, check_images="none")  # some tests move the images
TWO_PROCESSES = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


@pytest.fixture
def source(tmp_path, make_example, make_source, encode_image):
    """Everything that can happen: images as paths and bytes, a bad and a missing one, a row nobody could read."""
    examples = [Rejection("", "rows:0", "malformed row")]
    for number in range(60):
        data = encode_image(Image.new("RGB", (300 + number, 400), (number, 2 * number, 200)))
        path = tmp_path / "images" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        if number != 7:
            path.write_bytes(data if number != 9 else b"no image")
        image = data if number % 5 == 0 else path
        examples.append(make_example(f"e{number}", image=image, labels=[f"label {number % 3}"]))
    examples.append(make_example("e5"))
    return make_source(examples)


@pytest.fixture
def engine():
    from tfrecords_tools.packing.beam import make_engine

    return make_engine


@pytest.fixture
def unbroken(source, tmp_path, bytes_of):
    """What the local engine makes of the source."""
    pack(source, tmp_path / "local" / "dataset", OPTIONS, progress=False)
    files = bytes_of(tmp_path / "local" / "dataset")
    assert len(json.loads(files["dataset.json"])["splits"]["train"]["shards"]) > 3
    return files


@pytest.mark.parametrize("arguments", [["--runner=DirectRunner"], TWO_PROCESSES], ids=["one process", "two processes"])
def test_beam_makes_the_bytes_that_the_local_engine_makes(source, engine, unbroken, tmp_path, bytes_of, arguments):
    pack(source, tmp_path / "beam" / "dataset", OPTIONS, progress=False, engine=engine(arguments))
    assert bytes_of(tmp_path / "beam" / "dataset") == unbroken
    assert [path.name for path in (tmp_path / "beam").iterdir()] == ["dataset"]


def test_beam_passes_tasks_and_shards_through_an_exchange_where_no_disk_is_shared(source, engine, unbroken, tmp_path, bytes_of):
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    beam = engine(
        ["--runner=DirectRunner"], str(tmp_path / "exchange"), {str(tmp_path / "images"): str(tmp_path / "elsewhere")}
    )
    pack(source, tmp_path / "beam" / "dataset", OPTIONS, progress=False, engine=beam)
    assert bytes_of(tmp_path / "beam" / "dataset") == unbroken
    assert list((tmp_path / "exchange").iterdir()) == []


def test_beam_goes_on_where_a_killed_pipeline_stopped(source, engine, unbroken, tmp_path, bytes_of, monkeypatch):
    from tfrecords_tools.packing import beam

    made = tmp_path / "made"  # a file: Beam runs a copy of the function
    make_shard = beam.make_shard

    def fail_at_the_fourth(task, places, settings):
        done = made.read_text().split()
        if len(done) == 3:
            raise RuntimeError("the cluster went away")
        make_shard(task, places, settings)
        made.write_text("\n".join([*done, Path(task).name]))

    def make(output):
        pack(source, output, OPTIONS, progress=False, engine=engine(["--runner=DirectRunner"], exchange))

    for exchange in (None, str(tmp_path / "exchange")):
        output = tmp_path / f"beam-{bool(exchange)}" / "dataset"
        made.write_text("")
        monkeypatch.setattr(beam, "make_shard", fail_at_the_fourth)
        with pytest.raises(OSError, match=r"the Beam pipeline failed: (.|\n)*Run the same command again to go on"):
            make(output)
        assert not output.exists()
        first = made.read_text().split()
        made.write_text("past the failure " * 4)
        make(output)
        assert bytes_of(output) == unbroken
        again = made.read_text().split()[12:]
        assert len(first) == 3
        assert again
        assert not set(first) & set(again)


def test_local_engine_goes_on_with_what_beam_finished(source, engine, unbroken, tmp_path, bytes_of, monkeypatch):
    from tfrecords_tools.packing import beam

    def interrupted(folder, name):
        if name.startswith("test"):
            raise KeyboardInterrupt
        return finished_shard(folder, name)

    monkeypatch.setattr(beam, "finished_shard", interrupted)
    output = tmp_path / "beam" / "dataset"
    with pytest.raises(KeyboardInterrupt):
        pack(source, output, OPTIONS, progress=False, engine=engine(["--runner=DirectRunner"]))
    pack(source, output, OPTIONS, progress=False)
    assert bytes_of(output) == unbroken


def test_too_much_bad_input_stops_a_beam_pack(source, engine, tmp_path):
    options = dataclasses.replace(OPTIONS, max_bad_fraction=0.05)
    with pytest.raises(PackError, match=r"4 of 62 examples are bad, over the allowed fraction of 0\.05"):
        pack(source, tmp_path / "beam" / "dataset", options, progress=False, engine=engine(["--runner=DirectRunner"]))
    assert not (tmp_path / "beam" / "dataset").exists()


def test_unknown_beam_option_is_an_error(engine):
    with pytest.raises(ValueError, match="Apache Beam knows no option --flink_mastr"):
        engine(["--runner=FlinkRunner", "--flink_mastr=host:8081"])


def test_command_line_hands_what_stands_behind_the_dashes_to_beam(call, tmp_path, bytes_of):
    arguments = ["pack", "sample", "--num_examples=40", "--examples_per_shard=8"]
    assert call(main, *arguments, f"--output={tmp_path / 'a' / 'sample'}")[0] == 0
    beam = ["--engine=beam", "--", "--runner=DirectRunner"]
    assert call(main, *arguments, f"--output={tmp_path / 'b' / 'sample'}", *beam)[0] == 0
    assert bytes_of(tmp_path / "a" / "sample") == bytes_of(tmp_path / "b" / "sample")


def test_beam_options_without_beam_are_an_error(call, tmp_path):
    status, _, error = call(main, "pack", "sample", f"--output={tmp_path / 'a'}", "--", "--runner=FlinkRunner")
    assert status == 2
    assert "-- is for Apache Beam; add --engine=beam" in error
