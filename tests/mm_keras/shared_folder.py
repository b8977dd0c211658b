"""Folders that tests only read, made once for all processes of a test run."""

import os
from collections.abc import Callable
from pathlib import Path

import filelock


def shared_folder(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is the same in all of pytest-xdist's processes; the first that asks for it makes it, the others wait.

    Args:
        tmp_path_factory: pytest's fixture.
        name: of the folder; another content has another name.
        make: `(folder) -> anything`: fills the folder, which does not exist yet.
    """
    own = tmp_path_factory.getbasetemp()
    root = own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own
    folder = root / "shared" / name
    folder.parent.mkdir(exist_ok=True)
    done = folder.with_name(f"{name}.done")
    with filelock.FileLock(folder.with_name(f"{name}.lock")):
        if not done.is_file():
            make(folder)
            done.touch()
    return folder
