import functools
import shutil

import pytest

from mm_keras.cli import main, run_py


@pytest.fixture
def run(call):
    """A function: (arguments of mm-keras) -> exit status, standard output, standard error."""
    return functools.partial(call, main.main)


@pytest.fixture
def run_old(call):
    """A function: (arguments of run.py) -> exit status, standard output, standard error."""
    return functools.partial(call, run_py.main)


@pytest.fixture
def moved_run(tmp_path, trained_run, monkeypatch):
    """A trained run of the title alone, in a folder of its own, which is the working folder."""
    shutil.copytree(trained_run / "baselines" / "title", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "moved"
