import pytest

from mm_keras.config import functions
from mm_keras.config.functions import configurable_functions


def test_marked_functions_are_found_wherever_they_stand():
    names = set(configurable_functions())
    assert {
        "train",
        "evaluate",
        "build_two_tower",
        "build_gated_fusion",
        "make_loss",
        "table_dataset",
        "embed_classes",
    } <= names
    assert not {"build_resnet", "build_late_fusion", "make_training_batches", "configurable"} & names


def test_two_functions_of_one_name_are_an_error(monkeypatch):
    modules = list(functions.configurable_modules())
    monkeypatch.setattr(functions, "configurable_modules", lambda: [*modules, *modules])
    with pytest.raises(RuntimeError, match=r"is configurable in .* and .*: rename one"):
        configurable_functions.__wrapped__()
