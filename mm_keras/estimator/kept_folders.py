"""Temporary folders of a process: those of fitted classifiers, and packed DataFrames, found again by their content."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections import OrderedDict
from pathlib import Path

_MOST = 8  # packed DataFrames that are kept although no classifier needs them any more


class KeptFolder:
    """A folder that lives as long as this object, or the process."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="mm-keras-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


_packed: OrderedDict[str, KeptFolder] = OrderedDict()


def folder_of(*content: object) -> KeptFolder:
    """The folder for packed data of that content: that of an earlier call with the same content, if it is one of the latest.

    Cross-validation and searches fit on the same rows again and again: what frozen encoders made of them lies in that folder.
    """
    key = hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()
    folder = _packed[key] = _packed.pop(key, None) or KeptFolder()
    while len(_packed) > _MOST:
        _packed.popitem(last=False)
    return folder
