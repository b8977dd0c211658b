"""`mm-keras verify`: whether a run folder or an export is what was written."""

from __future__ import annotations

import argparse

from tfrecords_tools.dataset.printable import printable

SUMMARY = "find damaged files of a run folder or an export"
DESCRIPTION = """Compare every file of a run folder with the checksums in its checksums.sha256, those of its
baselines and exports, too; or every file of one export. Each problem is a line; the exit status is 0
if there is none, and 1 otherwise. Datasets are checked by `tfrecords-tools verify`."""
EXAMPLES = """  mm-keras verify runs/quickstart
  mm-keras verify runs/quickstart/export/1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a run folder, or the folder of an export")
    parser.add_argument(
        "--accept",
        action="store_true",
        help="first write the checksums anew, as the files are: after a change on purpose, or for a run of an older version",
    )


def run(options: argparse.Namespace) -> int:
    from mm_keras.runs.verify import accept, verify

    if options.accept:
        accept(options.folder)
    problems = verify(options.folder)
    for problem in problems:
        print(printable(problem))
    print(f"{options.folder}: {f'{len(problems)} problem(s)' if problems else 'every file is what was written'}")
    return 1 if problems else 0
