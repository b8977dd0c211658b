import sys
from pathlib import Path

import pytest

from mm_keras.sweep.trials import Trial

STAND_IN = Path(__file__).with_name("stand_in_training.py")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Trainings are stood in for; gives an empty folder for the sweep's file and its runs."""
    command = Trial.command
    monkeypatch.setattr(Trial, "command", lambda self: [sys.executable, str(STAND_IN), *command(self)[3:]])
    return tmp_path
