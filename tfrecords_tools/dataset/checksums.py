"""checksums.sha256: the checksums of the files of a folder, by which damage is found and named.

    # sha256 of the files in this folder. Check them: mm-keras verify
    8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1  features.json
    4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865  report/evaluation.md
    # written next: 53c234e5e8472b6ac51c1ae1cab3fe06fad053beb8ebfd8977b010655bfdd3c3  features.json
    # 9b2e1f1e0c5d0f1b3f8a5c5a6b2d1c0e…

`sha256sum --check checksums.sha256` reads it, too. The last line is the checksum of the lines above it. A file whose
replacement is under way has a further line, "written next". Such a file may be the old one or the new one, and either is
accepted, so a process may be killed at any time.

`begin` makes the file. From then on `atomic_file` enters all that it writes into the folder or below, except for hidden files
and folders (caches, which can be made again) and temporary ones. Files whose checksums are kept elsewhere, as dataset.json
keeps those of shards, need not stand in it. A folder below may have a checksums.sha256 of its own, which holds for its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tfrecords_tools.dataset.folder_lock import folder_lock
from tfrecords_tools.dataset.publish import UNFINISHED, publish
from tfrecords_tools.dataset.shards import sha256_of

CHECKSUMS_FILE = "checksums.sha256"
_HEADER = "# sha256 of the files in this folder. Check them: "
_NEXT = "# written next: "
_LINE_LENGTH = 66  # a sha256 and two spaces: the least that another program would write into a file of this name
_LINE = re.compile(r"(\\?)([0-9a-f]{64})  (.*)")


class DamagedFileError(ValueError):
    """A file that is no longer what was written. The message names it, and says what to do."""


class Checksums(NamedTuple):
    """The content of a checksums.sha256.

    Attributes:
        command: the command that checks the folder, "mm-keras verify".
        files: the sha256 of each file in hex, by its path in the folder, with "/".
        upcoming: the sha256 of files whose replacement is under way, or was when a process was killed.
    """

    command: str
    files: dict[str, str]
    upcoming: dict[str, str]

    def names_of(self, path: str) -> list[str]:
        """The listed names that belong to a path: the file itself, or the files of a folder; "" is the whole folder."""
        if path in self.files or path in self.upcoming:
            return [path]
        return sorted(name for name in {*self.files, *self.upcoming} if not path or name.startswith(f"{path}/"))


def begin(folder: Path, command: str, files: Iterable[str] = (), known: Mapping[str, str] | None = None) -> None:
    """Writes a new checksums.sha256.

    Args:
        folder: the folder whose files are listed.
        command: the command that checks the folder, without the folder's name.
        files: the paths, in the folder, of files that are there already; they are read.
        known: maps the paths of further files to their sha256 in hex; these files are not read.

    Example:
        >>> begin(Path("runs/products"), "mm-keras verify", ["run.json", "checkpoints/best.keras"])
    """
    _save(folder, Checksums(command, {name: sha256_of(folder / name) for name in files} | dict(known or {}), {}))


@contextlib.contextmanager
def entered(path: Path, temporary: Path) -> Iterator[None]:
    """Enters the checksum of `temporary`, which replaces `path` in the block; without a checksums.sha256 it does nothing."""
    folder = _keeper(path)
    if folder is None:
        yield
        return
    name, sha256 = _name(folder, path), sha256_of(temporary)
    with folder_lock(folder):
        checksums = load(folder)
        if checksums.files.get(name) == sha256 and name not in checksums.upcoming:
            yield
            return
        checksums.upcoming[name] = sha256
        _save(folder, checksums)
        yield
        checksums.files[name] = checksums.upcoming.pop(name)
        _save(folder, checksums)


def enter(*paths: Path) -> None:
    """Enters files, and all files of folders, that were written by other means than `atomic_file`."""
    for folder, files in _by_keeper(paths).items():
        with folder_lock(folder):
            checksums = load(folder)
            checksums.files.update((_name(folder, file), sha256_of(file)) for file in files)
            _save(folder, checksums)


def forget(path: Path) -> None:
    """Deletes the line with the checksum of a file, and the file, if there is one."""
    if folder := _keeper(path):
        with folder_lock(folder):
            checksums = load(folder)
            for entries in (checksums.files, checksums.upcoming):
                entries.pop(_name(folder, path), None)
            _save(folder, checksums)
    path.unlink(missing_ok=True)


def check(*paths: Path) -> None:
    """Compares files, and all files of folders, with their checksums; files without one are passed over.

    Raises:
        DamagedFileError: for the first file that is not what was written, or is gone.
    """
    loaded: dict[Path, Checksums] = {}
    for path in paths:
        folder = _keeper(path)
        if folder is None:
            continue
        checksums = loaded[folder] = loaded.get(folder) or load(folder)
        for name in checksums.names_of(_name(folder, path)):
            if problem := _problem(folder, name, checksums):
                raise DamagedFileError(f"{folder / name} {problem}. {what_to_do(folder, checksums.command)}")


def read_json(path: Path) -> object:
    """Reads a JSON file that this project wrote, and compares it with its checksum if it has one.

    Raises:
        FileNotFoundError: if there is no file.
        DamagedFileError: if it is not what was written, or no JSON.
    """
    check(path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is cut off or damaged: {error}. Put back a copy of it, or make it again") from error


def find_problems(folder: Path) -> list[str]:
    """Compares a folder with its checksums.sha256.

    Returns:
        a line for each file that is damaged or gone; checksums.sha256 may be one of them. The files of folders below that have
        a checksums.sha256 of their own are not looked at.
    """
    if not (folder / CHECKSUMS_FILE).is_file():
        return [f"{CHECKSUMS_FILE}: missing, so that damage cannot be found; --accept writes it for the files as they are"]
    try:
        checksums = load(folder)
    except DamagedFileError as error:
        return [f"{CHECKSUMS_FILE}: {str(error).removeprefix(f'{folder / CHECKSUMS_FILE} ')}"]
    return [f"{name}: {problem}" for name in checksums.names_of("") if (problem := _problem(folder, name, checksums))]


def load(folder: Path) -> Checksums:
    """Reads a checksums.sha256.

    Raises:
        DamagedFileError: if it is damaged itself.
    """
    path = folder / CHECKSUMS_FILE
    content = path.read_bytes()
    *lines, last = content.splitlines(keepends=True) or [b""]
    body = b"".join(lines)
    if last != _seal(body):
        raise DamagedFileError(f"{path} is damaged: it does not end in its own checksum. {what_to_do(folder)}")
    files: dict[str, str] = {}
    upcoming: dict[str, str] = {}
    header, *entries = os.fsdecode(body).removesuffix("\n").split("\n")
    for line in entries:
        backslash, sha256, name = _LINE.fullmatch(line.removeprefix(_NEXT)).groups()
        if backslash:
            name = re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], name)
        (upcoming if line.startswith(_NEXT) else files)[name] = sha256
    return Checksums(header.removeprefix(_HEADER), files, upcoming)


def what_to_do(folder: Path, command: str | None = None) -> str:
    """The end of an error about a damaged file."""
    command = command or "the verify command"
    return (
        f"Put back a copy, or make {folder} again. After a change on purpose, `{command} {folder} --accept` takes its files as "
        "they are"
    )


def _problem(folder: Path, name: str, checksums: Checksums) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"is missing, though {CHECKSUMS_FILE} lists it" if name in checksums.files else None
    if sha256_of(path) in (checksums.files.get(name), checksums.upcoming.get(name)):
        return None
    return f"is damaged: its sha256 is not the one in {CHECKSUMS_FILE}"


def _keeper(path: Path) -> Path | None:
    """The nearest folder above a file that keeps its checksum."""
    path = path.absolute()
    for folder, child in zip(path.parents, (path, *path.parents), strict=False):
        if child.name.startswith((".", UNFINISHED)) or child.name == CHECKSUMS_FILE:
            return None
        if _is_ours(folder / CHECKSUMS_FILE):
            return folder
    return None


def _is_ours(path: Path) -> bool:
    """Whether this project wrote the checksums.sha256 at `path`, even if it was cut off or its first line is damaged."""
    try:
        with open(path, "rb") as file:
            start = file.read(2 * len(_HEADER))
    except OSError:
        return False
    return len(start) < _LINE_LENGTH or any(part.encode() in start for part in _HEADER.split(". "))


def _by_keeper(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    files_by_keeper: dict[Path, list[Path]] = {}
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and (folder := _keeper(file)):
                files_by_keeper.setdefault(folder, []).append(file)
    return files_by_keeper


def _name(folder: Path, path: Path) -> str:
    return path.absolute().relative_to(folder.absolute()).as_posix()


def _save(folder: Path, checksums: Checksums) -> None:
    lines = [f"{_HEADER}{checksums.command}"]
    lines += [_format(sha256, name) for name, sha256 in sorted(checksums.files.items())]
    lines += [_NEXT + _format(sha256, name) for name, sha256 in sorted(checksums.upcoming.items())]
    body = os.fsencode("".join(f"{line}\n" for line in lines))
    temporary = folder / f"{UNFINISHED}{CHECKSUMS_FILE}"
    try:
        temporary.write_bytes(body + _seal(body))
        publish(temporary, folder / CHECKSUMS_FILE)
    finally:
        with contextlib.suppress(OSError):  # the file was renamed, or the disk fails
            temporary.unlink()


def _format(sha256: str, name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{'' if escaped == name else chr(92)}{sha256}  {escaped}"


def _seal(body: bytes) -> bytes:
    return f"# {hashlib.sha256(body).hexdigest()}\n".encode()
