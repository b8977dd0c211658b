"""Reads the classes of ImageNet's validation images, which are released in one flat folder and named by number.

    val/ILSVRC2012_val_00000001.JPEG … ILSVRC2012_val_00050000.JPEG

    The devkit has in ILSVRC2012_devkit_t12/data/:
        ILSVRC2012_validation_ground_truth.txt    an ILSVRC2012_ID on each line, in the order of the images: 490
        meta.mat                                  synsets with ILSVRC2012_ID, WNID, num_children
    Kaggle has:
        LOC_val_solution.csv                      ImageId,PredictionString
                                                  ILSVRC2012_val_00000001,n01751748 111 108 441 193

An ILSVRC2012_ID is not the place of the wnid in sorted order: 490 is n01751748, the 66th. So the ground truth needs meta.mat.
"""

from __future__ import annotations

import re
from pathlib import Path

from tfrecords_tools.sources.files import SourceError, iter_csv, iter_lines

PREFIX = "ILSVRC2012_val_"
_KAGGLE = ("ImageId", "PredictionString")
_WNID = re.compile(r"n\d{8}")


def read_val_labels(path: str | Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Reads the ground truth of the devkit or the solution of Kaggle; the first line of the file tells which it is.

    Args:
        path: the file. The ground truth of the devkit needs meta.mat, see `meta_of`.

    Returns:
        {"ILSVRC2012_val_00000001": "n01751748", …}, and ("name:line", reason) of the rows of a CSV file that could not be read.

    Raises:
        SourceError: if the file is neither of the two, or meta.mat is missing or damaged. Also if a line of the ground truth
            is no class of meta.mat; it cannot be left out, since the numbers of lines are those of the images.
    """
    path = Path(path)
    _, first = next(iter_lines(path), (0, ""))
    if all(name in first for name in _KAGGLE):
        return _read_solution(path)
    if first.isdecimal():
        return _read_ground_truth(path), []
    raise SourceError(
        f"{path} is neither the devkit's ILSVRC2012_validation_ground_truth.txt (a number a line) nor Kaggle's "
        f"LOC_val_solution.csv (with the header {','.join(_KAGGLE)}). Its first line is {first[:80]!r}"
    )


def meta_of(path: str | Path) -> Path | None:
    """The path of meta.mat, which lies beside a ground truth or in ../data/; None if the file needs none.

    Raises:
        SourceError: if the file needs a meta.mat that is not there.
    """
    path = Path(path)
    _, first = next(iter_lines(path), (0, ""))
    if not first.isdecimal():
        return None
    places = [path.parent / "meta.mat", path.absolute().parent.parent / "data" / "meta.mat"]
    meta = next((place for place in places if place.is_file()), None)
    if not meta:
        raise SourceError(
            f"{path} holds ILSVRC2012_IDs, which the devkit's meta.mat translates; it is neither {places[0]} nor {places[1]}. "
            "Copy it there from ILSVRC2012_devkit_t12/data, or give Kaggle's LOC_val_solution.csv"
        )
    return meta


def _read_ground_truth(path: Path) -> dict[str, str]:
    meta = meta_of(path)
    wnids = _read_meta(meta)
    labels: dict[str, str] = {}
    for number, line in iter_lines(path):
        if number != len(labels) + 1:
            raise SourceError(f"{path}:{number - 1} is blank; the line numbers must be those of the images")
        if not line.isdecimal() or int(line) not in wnids:
            raise SourceError(
                f"{path}:{number}: {line[:80]!r} is no ILSVRC2012_ID of a class in {meta} ({len(wnids):,} classes)"
            )
        labels[f"{PREFIX}{number:08d}"] = wnids[int(line)]
    return labels


def _read_meta(path: Path) -> dict[int, str]:
    """Maps the ILSVRC2012_IDs of the classes to wnids. Classes are synsets without children; other synsets have IDs, too."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True, variable_names=["synsets"])["synsets"]
        columns = [synsets[name].tolist() for name in ("ILSVRC2012_ID", "WNID", "num_children")]
        return {int(key): str(wnid) for key, wnid, children in zip(*columns, strict=True) if not children}
    except Exception as error:  # SciPy raises errors of many kinds about damaged files
        raise SourceError(
            f"{path} is no meta.mat of the devkit, with synsets that have an ILSVRC2012_ID, a WNID and num_children: "
            f"{type(error).__name__}: {error}"
        ) from error


def _read_solution(path: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Reads Kaggle's file, which gives the class of an image with each box: "n01751748 111 108 441 193 n01751748 …"."""
    labels: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    for where, row in iter_csv(path, _KAGGLE):
        if isinstance(row, str):
            problems.append((where, row))
            continue
        image, boxes = (row[name].strip() for name in _KAGGLE)
        wnids = set(boxes.split()[::5])
        if len(wnids) != 1 or not all(map(_WNID.fullmatch, wnids)):
            problems.append((where, f"expected boxes of one class, each a wnid and four numbers. Received: {boxes[:80]!r}"))
        elif image in labels:
            problems.append((where, f"ImageId {image!r} stands there twice; the first is used"))
        else:
            labels[image] = wnids.pop()
    return labels, problems
