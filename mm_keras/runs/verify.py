"""Compares run folders and exports with their checksums. It needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mm_keras.features import FEATURES_FILE
from mm_keras.runs.run_folder import OWN_FILES, RUN_FILE, VERIFY_COMMAND
from tfrecords_tools.dataset import checksums
from tfrecords_tools.dataset.checksums import CHECKSUMS_FILE, DamagedFileError
from tfrecords_tools.dataset.info import DATASET_FILE
from tfrecords_tools.dataset.publish import UNFINISHED
from tfrecords_tools.dataset.shards import CorruptShardError, iter_records

_SAVED_MODEL = "saved_model.pb"
_EVENTS = "events.out.tfevents."  # TensorBoard's; they have checksums of their own, and grow while a training runs


def verify(folder: str | Path) -> list[str]:
    """Checks every file of a run folder, its baselines and its exports, or of one export.

    Every file has to stand in the checksums.sha256 of its folder with the sha256 of its content. Files that a killed
    process left under temporary names are not looked at, nor are files that do not belong to the run.

    Args:
        folder: a run folder, or the folder of an export.

    Returns:
        one line for each problem. An empty list means that every file is what was written.

    Raises:
        FileNotFoundError: if the folder is neither.
        ValueError: for a dataset folder, which another program checks.

    Example:
        >>> verify("runs/products")
        ['vocabulary_0.txt: is damaged: its sha256 is not the one in checksums.sha256']
    """
    return [problem for root in _find_kept(Path(folder)) for problem in _verify_one(Path(folder), root)]


def accept(folder: str | Path) -> None:
    """Writes the checksums of a run folder or export anew from its files: after a change on purpose, or for an older run.

    Raises:
        FileNotFoundError, ValueError: as `verify` does.
    """
    for root in _find_kept(Path(folder)):
        checksums.begin(root, VERIFY_COMMAND, [path.relative_to(root).as_posix() for path in _files(root)])


def _find_kept(folder: Path) -> list[Path]:
    """The folders, `folder` and below, that have a checksums.sha256, or should have one."""
    if (folder / DATASET_FILE).is_file():
        raise ValueError(f"{folder} is a dataset folder; check it with: tfrecords-tools verify {folder}")
    if _is_run(folder):
        baselines = [root for path in sorted(folder.glob("baselines/*/")) for root in _find_kept(path)]
        return [folder, *baselines, *(path for path in sorted(folder.glob("export*/*/")) if path.name.isdecimal())]
    if (folder / _SAVED_MODEL).is_file() or (folder / CHECKSUMS_FILE).is_file():
        return [folder]
    raise FileNotFoundError(
        f"{folder} is no run folder and no export: it holds no {RUN_FILE}, {FEATURES_FILE} or {_SAVED_MODEL}"
    )


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (RUN_FILE, FEATURES_FILE, "checkpoints"))


def _verify_one(top: Path, root: Path) -> list[str]:
    problems = checksums.find_problems(root)
    try:
        known = checksums.load(root)
    except (DamagedFileError, FileNotFoundError):
        known = None
    for path in _files(root) if known else ():
        name = path.relative_to(root).as_posix()
        if name in known.files or name in known.upcoming:
            continue
        if not path.name.startswith(_EVENTS):
            problems.append(f"{name}: stands in no checksum: a process was killed as it wrote it, or it is not from mm-keras")
            continue
        try:
            for _ in iter_records(path):
                pass
        except CorruptShardError as error:
            problems.append(f"{name}: is damaged: {str(error).removeprefix(f'{path}: ')}")
    prefix = "" if root == top else f"{root.relative_to(top).as_posix()}/"
    return [prefix + problem for problem in problems]


def _files(root: Path) -> Iterator[Path]:
    """The files of a folder with checksums, without those of folders below that have their own."""
    is_run = _is_run(root)
    tops = [path for name in OWN_FILES for path in sorted(root.glob(name))] if is_run else sorted(root.iterdir())
    for top in tops:
        if is_run and top.name in ("baselines", "export"):
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            parts = path.relative_to(root).parts
            temporary = any(part.startswith((".", UNFINISHED)) for part in parts)
            if path.is_file() and not temporary and path.name != CHECKSUMS_FILE:
                yield path
