import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import tfrecords_tools
from tfrecords_tools.cli.main import main

REPOSITORY = Path(tfrecords_tools.__file__).parent.parent


def _worker_processes(group):
    """How many processes of a process group run packing workers."""
    listed = subprocess.run(["ps", "-ww", "-e", "-o", "pgid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=1) for line in listed.splitlines()]
    return sum(int(line[0]) == group and "spawn_main" in line[1] for line in lines)


@pytest.mark.parametrize(
    "seconds_after_start_of_workers",
    [pytest.param(0.4, marks=pytest.mark.ci), pytest.param(2.0, marks=pytest.mark.slow)],
)
def test_ctrl_c_ends_packing_and_its_workers_with_one_line(tmp_path, seconds_after_start_of_workers):
    Image.effect_noise((1500, 1500), 90).save(tmp_path / "noise.png", compress_level=0)  # takes long to pack, not to list
    (tmp_path / "pictures.csv").write_text("image\n" + "noise.png\n" * 3000)
    arguments = ["pack", "table", "pictures.csv", "--image=image", "--workers=2", "--output=out"]
    command = [sys.executable, "-m", "tfrecords_tools", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        deadline = time.monotonic() + 120
        while not _worker_processes(process.pid):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(seconds_after_start_of_workers)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the program and all of its workers
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.strip()]
    assert lines[-1] == "tfrecords-tools: interrupted"
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err
    assert not (tmp_path / "out").exists()
    assert _worker_processes(process.pid) == 0


@pytest.mark.parametrize("spelling", ["--num-examples=20", "--num_examples=20"])
def test_long_options_are_spelled_either_way(call, tmp_path, spelling):
    status, out, _ = call(main, "pack", "sample", spelling, "--examples-per-shard", "5", f"--output={tmp_path / 'out-put'}")
    assert (status, "20 examples" in out) == (0, True)
    assert (tmp_path / "out-put").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pak"], "did you mean pack?"),
        (["pack", "tabel"], "did you mean table?"),
        (["pack", "sample", "--output=x", "--num_example=1"], "--num_example=1; did you mean --num_examples?"),
    ],
)
def test_unknown_word_ends_with_what_was_probably_meant(call, arguments, message):
    status, _, err = call(main, *arguments)
    assert (status, message in err) == (2, True), err
