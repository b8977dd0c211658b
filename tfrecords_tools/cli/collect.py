"""The sub-commands of `tfrecords-tools collect`, which fetch images and texts before they are packed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tfrecords_tools.sources.command import comma_list

_IMAGES_EPILOG = """examples:
  tfrecords-tools collect images photos.csv --id=id --url=url --output=images
  tfrecords-tools collect images photos.csv --id=id --url=url --output=images --retry_failed=timeout,server_error

Run it again to go on where it stopped; ledger.sqlite in the output says what became of each URL.
"""
_WIKIPEDIA_EPILOG = """example:
  tfrecords-tools collect wikipedia labels.txt --output=texts --user_agent='my-project/1.0 (me@example.org)'

What is ambiguous, not found or redirected stands in work_list.csv. Decide in a CSV `label,title` and run again with
--overrides=decisions.csv: only what changed is asked for.
"""


def add_collect(commands) -> None:
    """Adds `collect` and its sub-commands."""
    collect = commands.add_parser("collect", help="fetch images by URL, or class descriptions from Wikipedia")
    kinds = collect.add_subparsers(required=True, metavar="KIND")

    images = kinds.add_parser("images", help="images of a table with ids and URLs", epilog=_IMAGES_EPILOG)
    images.add_argument("table", metavar="FILE", help="CSV")
    images.add_argument("--id", required=True, metavar="COLUMN", help="unique ids: they become file names")
    images.add_argument("--url", required=True, metavar="COLUMN")
    images.set_defaults(run=_images, list_urls=_table_urls)
    open_images = kinds.add_parser("open_images", help="images of Open Images by id, from its public bucket")
    open_images.add_argument("table", metavar="FILE", help="a line an image: train/0a1b2c… (or validation, test)")
    open_images.set_defaults(run=_images, list_urls=_open_images_urls)
    for parser in (images, open_images):
        parser.add_argument("--output", required=True, metavar="FOLDER")
        parser.add_argument("--workers", type=int, default=16, help="requests at a time (default: 16)")
        parser.add_argument("--seconds", type=float, default=30.0, help="how long one image may take (default: 30)")
        parser.add_argument(
            "--max_bytes", type=int, default=50_000_000, help="the largest image that is fetched (default: 50,000,000)"
        )
        parser.add_argument(
            "--retry_failed", metavar="ERROR,…", default="", help="try failed URLs of these error classes again"
        )
        parser.add_argument("--allow_private", action="store_true", help="also fetch from addresses that are not public")

    wikipedia = kinds.add_parser("wikipedia", help="a description of each class", epilog=_WIKIPEDIA_EPILOG)
    wikipedia.add_argument("labels", metavar="FILE", help="a class name a line, such as labels.txt of a dataset")
    wikipedia.add_argument("--output", required=True, metavar="FOLDER")
    wikipedia.add_argument(
        "--user_agent", required=True, help="who asks, with a contact; Wikipedia blocks those who do not say"
    )
    wikipedia.add_argument("--language", default="en", help="which Wikipedia is asked (default: en)")
    wikipedia.add_argument("--overrides", metavar="FILE", help="CSV `label,title` of articles with another name")
    wikipedia.add_argument("--seconds_between", type=float, default=0.5, help="pause between two articles (default: 0.5)")
    wikipedia.add_argument(
        "--sections",
        default="Description",
        metavar="TITLE,…",
        help="sections that are taken besides the summary (default: Description)",
    )
    wikipedia.add_argument("--paragraphs", type=int, help="only the first N (default: all)")
    wikipedia.add_argument("--sentences", type=int, help="only the first N (default: all)")
    wikipedia.add_argument("--min_tokens", type=int, default=1, help="shorter texts go to the work list (default: 1)")
    wikipedia.add_argument("--max_tokens", type=int, default=512, help="longer texts are cut (default: 512)")
    wikipedia.add_argument("--strip_punctuation", action="store_true")
    wikipedia.set_defaults(run=_wikipedia)

    check = kinds.add_parser("check_texts", help="find class texts that are empty, shared, or of another thing")
    check.add_argument("texts", metavar="FILE", help="CSV of class and text, or class_descriptions.jsonl")
    check.add_argument("--names", metavar="FILE", help="CSV of class id and name, where the classes are ids")
    check.add_argument(
        "--columns", default="LabelName,Definition", help="of a CSV with a header (default: LabelName,Definition)"
    )
    check.add_argument("--language", default="english", help="of the texts, for stemming (default: english)")
    check.set_defaults(run=_check_texts)


def _images(options: argparse.Namespace) -> int:
    from tfrecords_tools.collect.download import LEDGER_FILE, DownloadOptions, download
    from tfrecords_tools.collect.fetch import FetchOptions

    fetch = FetchOptions(seconds=options.seconds, max_bytes=options.max_bytes, allow_private=options.allow_private)
    download_options = DownloadOptions(workers=options.workers, fetch=fetch)
    counts = download(options.list_urls(options), options.output, download_options, comma_list(options.retry_failed))
    for outcome, count in counts.items():
        print(f"{count:>9,}  {outcome}")
    print(f"see {Path(options.output) / LEDGER_FILE}{': table refused, and table urls' if 'refused' in counts else ''}")
    return 0 if set(counts) <= {"done"} else 1


def _table_urls(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    from tfrecords_tools.collect.ledger import Refused
    from tfrecords_tools.sources.files import iter_csv

    for where, row in iter_csv(options.table, (options.id, options.url)):
        yield Refused(where, "", str(row)) if isinstance(row, str) else (row[options.id].strip(), row[options.url].strip())


def _open_images_urls(options: argparse.Namespace) -> list[tuple[str, str]]:
    from tfrecords_tools.collect.download import open_images_urls
    from tfrecords_tools.sources.files import iter_lines

    return open_images_urls(line for _, line in iter_lines(options.table))


def _wikipedia(options: argparse.Namespace) -> int:
    from tfrecords_tools.collect.wikipedia import WORK_LIST_FILE, TextOptions, compose_texts, fetch_pages
    from tfrecords_tools.dataset.info import CLASS_DESCRIPTIONS_FILE
    from tfrecords_tools.sources.files import SourceError, iter_lines, read_pairs

    labels = [line for _, line in iter_lines(options.labels)]
    overrides, problems = read_pairs(options.overrides, ("label", "title")) if options.overrides else ({}, [])
    if problems:
        raise SourceError(": ".join(problems[0]))
    fetch_pages(labels, options.output, options.user_agent, options.language, overrides, options.seconds_between)
    text_options = TextOptions(
        sections=comma_list(options.sections),
        paragraphs=options.paragraphs,
        sentences=options.sentences,
        min_tokens=options.min_tokens,
        max_tokens=options.max_tokens,
        strip_punctuation=options.strip_punctuation,
    )
    for outcome, count in compose_texts(options.output, labels, text_options).items():
        print(f"{count:>9,}  {outcome}")
    print(f"see {Path(options.output) / CLASS_DESCRIPTIONS_FILE} and {WORK_LIST_FILE}")
    return 0


def _check_texts(options: argparse.Namespace) -> int:
    from tfrecords_tools.collect.class_texts import check_class_texts
    from tfrecords_tools.sources.files import read_class_texts, read_pairs

    names = read_pairs(options.names, ("LabelName", "DisplayName"))[0] if options.names else {}
    columns = tuple(comma_list(options.columns))
    texts, malformed = read_class_texts(options.texts, columns, names)
    for where, reason in malformed:
        print(f"{where}: {reason}")
    problems = check_class_texts(texts, names, options.language)
    for problem in problems:
        print(f"{problem.kind:<11} {problem.label:<14} {problem.detail}")
    print(f"{len(texts):,} texts, {len(problems):,} problem(s)")
    return 1 if problems or malformed else 0
