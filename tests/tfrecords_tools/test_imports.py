import ast
from pathlib import Path

import pytest

import tfrecords_tools

MODULES = sorted(Path(tfrecords_tools.__file__).parent.rglob("*.py"))
LATE = {"tensorflow", "pandas", "pyarrow", "apache_beam", "tensorflow_datasets", "nltk"}  # slow, not always needed


def _imported(node):
    """The top packages that an import statement names; a relative import names our own."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {"tfrecords_tools" if node.level else node.module.partition(".")[0]}
    return set()


def _at_module_level(tree):
    """Statements that run on import: not those in functions, nor under `if TYPE_CHECKING:`."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not checking and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_records_know_nothing_of_models(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        assert "mm_keras" not in _imported(node), f"{path}:{node.lineno}: move what is shared into tfrecords_tools"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_heavy_packages_are_imported_where_they_are_used(path):
    for node in _at_module_level(ast.parse(path.read_text("utf-8"))):
        heavy = _imported(node) & LATE
        assert not heavy, f"{path}:{node.lineno}: import {heavy.pop()} inside the function that uses it"
