"""SIGTERM at any moment: it is never swallowed, and the program ends with status 75."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

from mm_keras.cli import evaluate
from mm_keras.cli.main import main
from mm_keras.distribution.preemption import EXIT_CODE, Preempted, asked_to_end, end_if_asked, noticing_sigterm
from tfrecords_tools.progress import progress_bar


def _sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


def _while_something_swallows_exceptions():
    with contextlib.suppress(BaseException):  # as AutoGraph and extension modules do
        _sigterm()


def _while_tensorflow_traces():
    @tf.function
    def traced(x):
        _sigterm()
        return x if x > 0 else -x

    traced(tf.constant(1.0))


MOMENTS = [_sigterm, _while_something_swallows_exceptions, _while_tensorflow_traces]


@pytest.mark.parametrize("moment", MOMENTS)
def test_request_is_noted_and_ends_the_work_at_the_next_look(moment):
    with pytest.raises(Preempted, match="asked to end"), noticing_sigterm():
        moment()
        assert asked_to_end()
        end_if_asked()
    assert not asked_to_end()


def test_progress_bars_look_between_two_steps():
    done = []
    with pytest.raises(Preempted), noticing_sigterm(), progress_bar("working", "steps", shown=False) as bar:
        for step in range(5):
            done.append(step)
            if step == 2:
                _sigterm()
            bar.update()
    assert done == [0, 1, 2]


def test_request_of_an_inner_block_reaches_the_outer_one():
    before = signal.getsignal(signal.SIGTERM)
    with noticing_sigterm():
        with noticing_sigterm(in_steps=True):
            _sigterm()
        assert asked_to_end()
    assert not asked_to_end()
    assert signal.getsignal(signal.SIGTERM) is before


def _fail():
    _sigterm()
    raise RuntimeError("a packing worker died")  # whom the signal reached as well


@pytest.mark.parametrize("moment", [*MOMENTS, _fail])
def test_program_ends_with_status_75_whatever_it_was_at(moment, monkeypatch, call):
    monkeypatch.setattr(evaluate, "run", lambda options: moment() or 0)
    status, _, err = call(main, "evaluate", "runs/x")
    assert (status, err) == (
        EXIT_CODE,
        "mm-keras: asked to end (SIGTERM); run the same command again, of a training with --resume\n",
    )


@pytest.mark.parametrize(
    ("number", "status", "line"), [("SIGTERM", 75, "asked to end (SIGTERM)"), ("SIGINT", 130, "interrupted\n")]
)
def test_program_that_looks_nowhere_is_ended_after_a_while(number, status, line):
    script = f"""
import os, signal, time
from mm_keras.distribution import preemption
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have switched off
preemption._AT_ONCE = 0.1
with preemption.noticing_sigterm(patience=0.1):
    os.kill(os.getpid(), signal.{number})
    time.sleep(30)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, f"mm-keras: {line}" in ended.stderr) == (status, True)


def test_ctrl_c_of_a_program_waits_for_the_next_look():
    """Raised at once, it may be in the midst of a callback that swallows it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), noticing_sigterm(patience=60):
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked_to_end()
            end_if_asked()
        with pytest.raises(KeyboardInterrupt), noticing_sigterm(patience=60):
            for _ in range(2):  # a second one does not wait
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
