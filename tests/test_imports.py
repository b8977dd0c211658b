import ast
import graphlib
import re
from pathlib import Path

import pytest

import mm_keras
import tfrecords_tools

PACKAGE = Path(mm_keras.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TOOLS_PACKAGE = Path(tfrecords_tools.__file__).parent
TOOLS = sorted(TOOLS_PACKAGE.rglob("*.py"))
LOOSE = {  # module beside the folders of mm_keras -> the rooms that it may import
    "features": "input_names, text_specs, tokenizer_spec",
    "text_specs": "input_names, tokenizer_spec",
    "scripts": "",
    "input_names": "",
    "tokenizer_spec": "caption_words",
    "caption_words": "scripts",
    "keras_internals": "",
    "downloads": "keras_internals",
    "packed": "distribution, tfrecords_tools.packing, tfrecords_tools.sources",
    "experiment": "distribution, report, runs, training",
    "configurable": "",
}
PURE = [path for path in MODULES if path.parent.name in ("model", "objectives")]
PURE += [PACKAGE / f"{name}.py" for name in ("features", "input_names", "scripts", "text_specs", "tokenizer_spec")]
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


def _room(module):
    """The room of a module's full name: the package's folder, or the module beside the folders, that it belongs to."""
    return ".".join(module.split(".")[:2])


def _rooms():
    """Room -> the rooms that it may import, as its `__init__` docstring says, or the table above for a module."""
    allowed = {f"mm_keras.{name}": _listed("mm_keras", names) for name, names in LOOSE.items()}
    for package in (PACKAGE, TOOLS_PACKAGE):
        for path in sorted(package.glob("*/__init__.py")):
            (line,) = re.findall(r"^May import: (.+?)\.$", ast.get_docstring(ast.parse(path.read_text("utf-8"))), re.M | re.S)
            allowed[f"{package.name}.{path.parent.name}"] = _listed(package.name, line)
    return allowed


def _listed(package, names):
    """The full names of the rooms in a comma-separated list; packing and the dataset's description serve mm_keras, too."""
    rooms = {name if "." in name else f"{package}.{name}" for name in re.split(r",\s*", names) if name}
    everywhere = {"mm_keras.configurable", "tfrecords_tools.dataset", "tfrecords_tools.progress"}
    return rooms | everywhere if package == "mm_keras" else rooms


def _arrows(path):
    """(room of the module, room that it imports, line), for each import of another room of the project."""
    here = _room(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        for name in _imported(node, path):
            there = _room(name)
            is_room = there in ROOMS or there == "tfrecords_tools.progress"
            if is_room and there != here:
                yield here, there, node.lineno


ROOMS = _rooms()


@pytest.mark.parametrize(
    "path", [path for path in (*MODULES, *TOOLS) if path.parent not in (PACKAGE, TOOLS_PACKAGE)], ids=_name
)
def test_folder_imports_only_what_its_docstring_says(path):
    wrong = [
        f"{path}:{line}: {here} may not import {there}: move what is needed, or change `May import:` in the folder's docstring"
        for here, there, line in _arrows(path)
        if "anything" not in "".join(ROOMS[here]) and there not in ROOMS[here]
    ]
    assert not wrong


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent == PACKAGE and path.stem in LOOSE], ids=_name)
def test_module_beside_the_folders_imports_only_what_the_table_says(path):
    assert {there for _, there, _ in _arrows(path)} <= ROOMS[f"mm_keras.{path.stem}"]


def test_every_module_beside_the_folders_is_in_the_table():
    assert {path.stem for path in MODULES if path.parent == PACKAGE} == {*LOOSE, "__init__"}


def test_imports_run_one_way():
    imported = {}
    for path in (*MODULES, *TOOLS):
        for here, there, _ in _arrows(path):
            imported.setdefault(here, set()).add(there)
    assert list(graphlib.TopologicalSorter(imported).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", [PACKAGE, TOOLS_PACKAGE], ids=lambda package: package.name)
def test_modules_import_each_other_in_no_circle(package):
    imported = {}
    for path in package.rglob("*.py"):
        here = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        imported[here] = {name for node in nodes for name in _imported(node, path) if name.startswith(package.name)} - {here}
    modules = {name: {other for other in names if other in imported} for name, names in imported.items()}
    assert list(graphlib.TopologicalSorter(modules).static_order())


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "classifier.py"], ids=_name)  # loaded late itself
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
    if path.parent.name != "config":
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        assert not _problems(path, nodes, lambda name: name.partition(".")[0] == "gin", "only mm_keras/config knows of it")


def test_checks_see_what_they_look_for(tmp_path):
    source = "import tensorflow as tf\ndef f():\n    from tensorflow.io import x\n    import keras_hub\n"
    tree = ast.parse(source)
    path = PACKAGE / "model" / "new.py"
    assert len(_problems(path, ast.walk(tree), lambda name: name.startswith("tensorflow"), "no")) == 2
    assert len(_problems(path, _at_module_level(tree), lambda name: name.startswith("tensorflow"), "no")) == 1
    relative = ast.parse("from ..data import text\nfrom mm_keras import data\n")
    assert len(_problems(path, ast.walk(relative), lambda name: name.startswith("mm_keras.data"), "no")) == 2


def _private_of_ours(path):
    """What a test takes of a module of ours by a name that begins with one underscore, other than constants."""
    tree, ours, taken = ast.parse(path.read_text()), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("mm_keras", "tfrecords_tools"):
            taken += [f"{node.module}.{alias.name}" for alias in node.names if re.match("_[a-z]", alias.name)]
            ours |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
            named_tuple = node.attr in ("_replace", "_asdict", "_fields")
            taken += [f"{ours[node.value.id]}.{node.attr}"] * bool(re.match("_[a-z]", node.attr) and not named_tuple)
        if isinstance(node, ast.Constant) and re.fullmatch(r"(mm_keras|tfrecords_tools)[\w.]*\._[a-z]\w*", str(node.value)):
            taken.append(node.value)
    return taken


def test_tests_use_what_is_public():
    """A function that deserves a test of its own has a name of its own; the others are tested through those."""
    found = {str(path.relative_to(PACKAGE.parent)): _private_of_ours(path) for path in Path(__file__).parent.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}
