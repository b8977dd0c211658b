"""checksums.sha256: the checksums of the files of a folder, by which damage is found and named.

    # sha256 of the files in this folder. Check them: mm-keras verify
    8a5edab282632443219e051e4ade2d1d5bbc671c781051bf1437897cbdfea0f1  features.json
    4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865  report/evaluation.md
    # written next: 53c234e5e8472b6ac51c1ae1cab3fe06fad053beb8ebfd8977b010655bfdd3c3  features.json
    # 9b2e1f1e0c5d0f1b3f8a5c5a6b2d1c0e…

`sha256sum --check checksums.sha256` reads it, too. The last line is the checksum of the lines above it. A file whose
replacement is under way has a line more; it may still be the old one, or be the new one already, so that a process may be
killed between the two.

`begin` makes the file. From then on `atomic_file` enters all that it writes into the folder or below, except for hidden files
and folders (caches, which can be made again) and temporary ones. Files with checksums of their own, as shards of records have
them, need not stand in it. A folder below may have a checksums.sha256 of its own, which counts for what is in there.
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
_LINE_LENGTH = 66  # the least that another program writes into a file of that name
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
        """The names that stand here for a path: the file itself, or the files of a folder; "" is the whole folder."""
        if path in self.files or path in self.upcoming:
            return [path]
        return sorted(name for name in {*self.files, *self.upcoming} if not path or name.startswith(f"{path}/"))


def begin(folder: Path, command: str, files: Iterable[str] = (), known: Mapping[str, str] | None = None) -> None:
    """Writes a new checksums.sha256.

    Args:
        folder: the folder that it is for.
        command: the command that checks the folder, without its name.
        files: the paths in the folder of what is there already.
        known: paths of further files, whose sha256 is known.

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
        known = load(folder)
        if known.files.get(name) == sha256 and name not in known.upcoming:
            yield
            return
        known.upcoming[name] = sha256
        _save(folder, known)
        yield
        known.files[name] = known.upcoming.pop(name)
        _save(folder, known)


def enter(*paths: Path) -> None:
    """Enters files, and all files of folders, that were written by other means than `atomic_file`."""
    for folder, files in _by_keeper(paths).items():
        with folder_lock(folder):
            known = load(folder)
            known.files.update((_name(folder, file), sha256_of(file)) for file in files)
            _save(folder, known)


def forget(path: Path) -> None:
    """Deletes the line with the checksum of a file, and the file, if there is one."""
    if folder := _keeper(path):
        with folder_lock(folder):
            known = load(folder)
            for entries in (known.files, known.upcoming):
                entries.pop(_name(folder, path), None)
            _save(folder, known)
    path.unlink(missing_ok=True)


def check(*paths: Path) -> None:
    """Compares files, and all files of folders, with their checksums; files without one are passed over.

    Raises:
        DamagedFileError: for the first one that is not what was written, or is gone.
    """
    read: dict[Path, Checksums] = {}
    for path in paths:
        folder = _keeper(path)
        if folder is None:
            continue
        known = read[folder] = read.get(folder) or load(folder)
        for name in known.names_of(_name(folder, path)):
            if problem := _problem(folder, name, known):
                raise DamagedFileError(f"{folder / name} {problem}. {what_to_do(folder, known.command)}")


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
        a line for each file that is damaged or gone; the file itself may be one of them. The files of folders below that have a
        checksums.sha256 of their own are not looked at.
    """
    if not (folder / CHECKSUMS_FILE).is_file():
        return [f"{CHECKSUMS_FILE}: missing, so that damage cannot be found; --accept writes it for the files as they are"]
    try:
        known = load(folder)
    except DamagedFileError as error:
        return [f"{CHECKSUMS_FILE}: {str(error).removeprefix(f'{folder / CHECKSUMS_FILE} ')}"]
    return [f"{name}: {problem}" for name in known.names_of("") if (problem := _problem(folder, name, known))]


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


def _problem(folder: Path, name: str, known: Checksums) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"is missing, though {CHECKSUMS_FILE} lists it" if name in known.files else None
    if sha256_of(path) in (known.files.get(name), known.upcoming.get(name)):
        return None
    return f"is damaged: its sha256 is not the one in {CHECKSUMS_FILE}"


def _keeper(path: Path) -> Path | None:
    """The nearest folder above a file that keeps its checksum."""
    path = path.absolute()
    for folder, name in zip(path.parents, (path, *path.parents), strict=False):
        if name.name.startswith((".", UNFINISHED)) or name.name == CHECKSUMS_FILE:
            return None
        if _is_ours(folder / CHECKSUMS_FILE):
            return folder
    return None


def _is_ours(path: Path) -> bool:
    """Whether this project wrote a file of that name, though it may be damaged: cut off, or its first line wrong in a place."""
    try:
        with open(path, "rb") as file:
            start = file.read(2 * len(_HEADER))
    except OSError:
        return False
    return len(start) < _LINE_LENGTH or any(part.encode() in start for part in _HEADER.split(". "))


def _by_keeper(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and (folder := _keeper(file)):
                found.setdefault(folder, []).append(file)
    return found


def _name(folder: Path, path: Path) -> str:
    return path.absolute().relative_to(folder.absolute()).as_posix()


def _save(folder: Path, known: Checksums) -> None:
    lines = [f"{_HEADER}{known.command}"]
    lines += [_format(sha256, name) for name, sha256 in sorted(known.files.items())]
    lines += [_NEXT + _format(sha256, name) for name, sha256 in sorted(known.upcoming.items())]
    body = os.fsencode("".join(f"{line}\n" for line in lines))
    temporary = folder / f"{UNFINISHED}{CHECKSUMS_FILE}"
    try:
        temporary.write_bytes(body + _seal(body))
        publish(temporary, folder / CHECKSUMS_FILE)
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or the disk fails
            temporary.unlink()


def _format(sha256: str, name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{'' if escaped == name else chr(92)}{sha256}  {escaped}"


def _seal(body: bytes) -> bytes:
    return f"# {hashlib.sha256(body).hexdigest()}\n".encode()
