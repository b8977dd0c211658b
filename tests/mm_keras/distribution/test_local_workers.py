import os
import signal
import sys
import threading
import time

import pytest

from mm_keras.cli.main import main
from mm_keras.distribution.local_workers import run_local_workers

PLACE = "import json, os, sys; index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"


def _run(script, count=2):
    return run_local_workers([sys.executable, "-c", PLACE + script], count)


def test_workers_know_each_other_and_all_end_well(capfd, tmp_path):
    script = (
        f"open(f'{tmp_path}/{{index}}', 'w').write(json.dumps(json.loads(os.environ['TF_CONFIG'])['cluster'])); print(index)"
    )
    assert _run(script, 3) == 0
    assert capfd.readouterr().out == "0\n"  # of the chief alone
    (cluster,) = {path.read_text() for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == cluster.count("127.0.0.1:") == 3


def test_worker_that_fails_ends_the_others_and_is_shown(capfd):
    began = time.monotonic()
    assert _run("import time; print('reading'); index and sys.exit('no such column'); time.sleep(50)") == 1
    assert time.monotonic() - began < 20
    err = capfd.readouterr().err
    assert "worker 1 of 2 ended with exit status 1, so all are ended" in err
    assert "  no such column" in err


def test_killed_worker_leaves_a_training_that_can_be_resumed(capfd):
    assert _run(f"import time; index or os.kill(os.getpid(), {signal.SIGKILL:d}); time.sleep(50)") == 75
    err = capfd.readouterr().err
    assert "worker 0 of 2 was ended by SIGKILL" in err
    assert "run the same command again with --resume" in err


def test_who_failed_is_told_from_who_only_missed_it(capfd):
    assert _run("sys.exit(75 if index == 0 else 2)") == 2
    assert "worker 1 of 2 ended with exit status 2" in capfd.readouterr().err


def test_ctrl_c_lets_all_workers_save(tmp_path, capfd):
    script = f"""
import pathlib, signal, time
def save(number, frame):
    pathlib.Path('{tmp_path}', f'saved-{{index}}').touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
pathlib.Path('{tmp_path}', f'begun-{{index}}').touch()
time.sleep(50)
"""

    def interrupt_when_begun():
        while len(list(tmp_path.glob("begun-*"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_begun, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        _run(script)
    assert len(list(tmp_path.glob("saved-*"))) == 2
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("flags", [["--local_workers=1"], ["--local_workers=2", "--strategy=mirrored"]])
def test_flags_that_make_no_workers_are_errors(call, flags):
    status, _, err = call(main, "train", "quickstart.gin", *flags)
    assert status == 2
    assert "--local_workers is 2 or more, and goes with --strategy=multi_worker alone" in err
