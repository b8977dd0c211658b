import ast
from pathlib import Path

import pytest

import mm_keras
import tfrecords_tools

PACKAGE = Path(mm_keras.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted(Path(tfrecords_tools.__file__).parent.rglob("*.py"))
PURE = [path for path in MODULES if path.parent.name in ("model", "objectives") or path.name == "features.py"]
TENSORFLOW = {"tensorflow", "tensorflow_text", "tensorflow_hub", "tf_keras"}
LATE_IN_TOOLS = ("tensorflow", "pandas", "pyarrow", "apache_beam", "tensorflow_datasets", "httpx", "wikipediaapi")
LATE_IN_TOOLS += ("nltk", "scipy", "sklearn")
OPTIONAL = {  # package -> what to do about an import at module level
    **dict.fromkeys(("tensorflow_text", "keras_hub"), "it takes seconds, or comes with an extra only"),
    **dict.fromkeys(("sklearn", "matplotlib", "pandas", "apache_beam", "tensorflow_hub", "optuna"), "it is not always needed"),
}


def _name(path):
    return str(path.relative_to(PACKAGE.parent))


def _imported(node, path):
    """The full names of the modules that an import statement names; relative ones are resolved."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = path.relative_to(PACKAGE.parent).with_suffix("").parts[: -node.level]
            base = ".".join([*package, *filter(None, [node.module])])
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return []


def _at_module_level(tree):
    """Statements that run on import: not those in functions, nor under `if TYPE_CHECKING:`."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not checking and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def _problems(path, nodes, is_wrong, remedy):
    return [f"{path}:{node.lineno}: {remedy}" for node in nodes if any(is_wrong(name) for name in _imported(node, path))]


@pytest.mark.parametrize("path", PURE, ids=_name)
def test_models_losses_and_metrics_run_on_any_backend(path):
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    remedy = "use keras.ops, or move this into mm_keras/data"
    assert not _problems(path, nodes, lambda name: name.partition(".")[0] in TENSORFLOW, remedy)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_data_and_model_know_nothing_of_each_other(path):
    other = {"data": "mm_keras.model", "model": "mm_keras.data"}.get(path.parent.name)
    if other:
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        remedy = "data and model share mm_keras/features.py alone; put what both need there"
        assert not _problems(path, nodes, lambda name: name == other or name.startswith(f"{other}."), remedy)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_optional_packages_are_imported_where_they_are_used(path):
    nodes = list(_at_module_level(ast.parse(path.read_text("utf-8"))))
    for package, reason in OPTIONAL.items():
        remedy = f"import {package} inside the function that uses it: {reason}"
        assert not _problems(path, nodes, lambda name, package=package: name.partition(".")[0] == package, remedy)


@pytest.mark.parametrize("path", TOOLS, ids=_name)
def test_records_know_nothing_of_models(path):
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    remedy = "move what is shared into tfrecords_tools"
    assert not _problems(path, nodes, lambda name: name.partition(".")[0] == "mm_keras", remedy)


@pytest.mark.parametrize("path", [path for path in TOOLS if path.name != "beam.py"], ids=_name)  # loaded late itself
def test_tools_start_without_heavy_packages(path):
    nodes = _at_module_level(ast.parse(path.read_text("utf-8")))
    remedy = f"import {', '.join(LATE_IN_TOOLS)} inside the functions that use them: they are slow, and not always needed"
    assert not _problems(path, nodes, lambda name: name.partition(".")[0] in LATE_IN_TOOLS, remedy)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_gin_stays_in_the_config_module(path):
    if path.name != "config.py":
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        assert not _problems(path, nodes, lambda name: name.partition(".")[0] == "gin", "register it in mm_keras/config.py")


def test_checks_see_what_they_look_for(tmp_path):
    source = "import tensorflow as tf\ndef f():\n    from tensorflow.io import x\n    import keras_hub\n"
    tree = ast.parse(source)
    path = PACKAGE / "model" / "new.py"
    assert len(_problems(path, ast.walk(tree), lambda name: name.startswith("tensorflow"), "no")) == 2
    assert len(_problems(path, _at_module_level(tree), lambda name: name.startswith("tensorflow"), "no")) == 1
    relative = ast.parse("from ..data import text\nfrom mm_keras import data\n")
    assert len(_problems(path, ast.walk(relative), lambda name: name.startswith("mm_keras.data"), "no")) == 2
