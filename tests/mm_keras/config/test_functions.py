from mm_keras.config import functions
from mm_keras.config.functions import configurable_functions


def test_marked_functions_are_found_wherever_they_stand():
    found = configurable_functions()
    assert {"train", "evaluate", "build_two_tower", "build_gated_fusion", "make_loss", "table_dataset", "embed_classes"} <= set(
        found
    )
    assert not {"build_resnet", "build_late_fusion", "make_training_batches", "configurable"} & set(found)


def test_two_functions_of_one_name_are_an_error(monkeypatch):
    import pytest

    modules = list(functions._modules())
    monkeypatch.setattr(functions, "_modules", lambda: [*modules, *modules])
    with pytest.raises(RuntimeError, match=r"is configurable in .* and .*: rename one"):
        configurable_functions.__wrapped__()
