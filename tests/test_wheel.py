import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mm_keras

REPOSITORY = Path(mm_keras.__file__).parent.parent
SOURCES = ("mm_keras", "tfrecords_tools", "configs")
NEEDED = ("build", "setuptools")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Names of the files in a wheel that is built from a copy of the source."""
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"building a wheel needs {missing[0]}")
    if not (REPOSITORY / "setup.cfg").is_file():
        pytest.skip("mm_keras is installed without its source")
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (path,) = (folder / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_every_module_and_config(wheel):
    names = set(wheel.namelist())
    for package in ("mm_keras", "tfrecords_tools"):
        for path in [*(REPOSITORY / package).rglob("*.py"), *(REPOSITORY / package).rglob("*.html")]:
            assert str(path.relative_to(REPOSITORY)) in names
    configs = {
        f"mm_keras/{path.relative_to(REPOSITORY)}"
        for path in (REPOSITORY / "configs").rglob("*.*")
        if path.suffix in (".gin", ".toml")
    }
    assert len(configs) > 5
    assert configs <= names


def test_wheel_holds_nothing_else(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {"mm_keras", "tfrecords_tools", f"mm_keras-{mm_keras.__version__}.dist-info"}


def test_wheel_installs_its_commands(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entries = wheel.read(name).decode()
    assert "mm-keras = mm_keras.cli.main:main" in entries
    assert "tfrecords-tools = tfrecords_tools.cli.main:main" in entries
