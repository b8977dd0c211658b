"""Downloads images from a list of URLs: in parallel, resumable, with a ledger that says what became of each.

output/
    ledger.sqlite          one row a URL: status, error class, attempts, file, bytes, sha256
    <id>.jpg               (or .png, …; an id may hold slashes)
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath

from tfrecords_tools.collect.fetch import PERMANENT, TEMPORARY, FetchError, FetchOptions, fetch, make_client
from tfrecords_tools.collect.ledger import Ledger, Outcome
from tfrecords_tools.dataset.atomic_file import atomic_file
from tfrecords_tools.progress import progress_bar

LEDGER_FILE = "ledger.sqlite"
_OPEN_IMAGES = "https://open-images-dataset.s3.amazonaws.com/{name}.jpg"
_SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


@dataclasses.dataclass(frozen=True)
class DownloadOptions:
    """How a list is downloaded.

    Attributes:
        workers: requests at a time.
        attempts: requests per URL while its error is a temporary one.
        backoff: seconds before the second attempt; doubled each time, with jitter. A server's Retry-After wins.
        max_wait: seconds that are waited at most, whatever a server asks for.
        fetch: limits of one request.
    """

    workers: int = 16
    attempts: int = 4
    backoff: float = 1.0
    max_wait: float = 60.0
    fetch: FetchOptions = dataclasses.field(default_factory=FetchOptions)


def download(
    urls: Iterable[tuple[str, str]],
    output: str | Path,
    options: DownloadOptions = DownloadOptions(),
    retry_failed: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, int]:
    """Downloads what the ledger in `output` does not say is done or failed.

    Args:
        urls: (id, URL) pairs; ids are unique and become file names. Listing them again resumes.
        output: the folder of the images and the ledger.
        options: see `DownloadOptions`.
        retry_failed: error classes of which failed URLs are tried again.
        progress: show a progress bar on standard error.

    Returns:
        "done" and each error class -> number of URLs.

    Raises:
        ValueError: for an unknown error class, an id that is no file name, or an id with two URLs.
    """
    unknown = sorted(set(retry_failed) - {*TEMPORARY, *PERMANENT})
    if unknown:
        raise ValueError(f"error classes are {sorted((*TEMPORARY, *PERMANENT))}. Received: {unknown[0]!r}")
    output = Path(output)
    client = make_client(options.fetch)
    output.mkdir(parents=True, exist_ok=True)
    with Ledger(output / LEDGER_FILE) as ledger, client:
        ledger.add((_check_id(example_id), url) for example_id, url in urls)
        ledger.retry(retry_failed)
        bar = progress_bar("downloading", "images", ledger.num_waiting(), progress)
        pool = ThreadPoolExecutor(options.workers)
        running: dict[Future, str] = {}
        try:
            for example_id, url in ledger.waiting():
                running[pool.submit(_download_one, client, example_id, url, output, options)] = example_id
                if len(running) >= 4 * options.workers:
                    _record_finished(running, ledger, bar)
            while running:
                _record_finished(running, ledger, bar)
        finally:
            pool.shutdown(cancel_futures=True)
            bar.close()
        return ledger.counts()


def open_images_urls(names: Iterable[str]) -> list[tuple[str, str]]:
    """(id, URL) pairs of lines such as `train/0a1b…`, as the Open Images downloader takes them; `.jpg` may follow.

    Raises:
        ValueError: for a line of another form.
    """
    pairs = []
    for number, line in enumerate(names, start=1):
        name = line.strip().removesuffix(".jpg")
        split, _, image_id = name.partition("/")
        if split not in ("train", "validation", "test", "challenge2018") or not image_id.isalnum():
            raise ValueError(f"line {number}: expected train|validation|test|challenge2018/<image id>. Received: {line!r}")
        pairs.append((name, _OPEN_IMAGES.format(name=name)))
    return pairs


def _record_finished(running: dict[Future, str], ledger: Ledger, bar) -> None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        ledger.record(running.pop(future), future.result())
        bar.update()


def _download_one(client, example_id: str, url: str, output: Path, options: DownloadOptions) -> Outcome:
    for attempt in range(1, options.attempts + 1):
        try:
            data = fetch(client, url, options.fetch)
            break
        except FetchError as error:
            if error.kind in PERMANENT or attempt == options.attempts:
                return Outcome("failed", error.kind, str(error), attempt)
            pause = options.backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            time.sleep(min(options.max_wait, pause if error.retry_after is None else error.retry_after))
    ending = next((ending for start, ending in _SIGNATURES.items() if data.startswith(start)), "img")
    path = output / f"{example_id}.{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
    file = path.relative_to(output).as_posix()
    return Outcome("done", "", "", attempt, file, len(data), hashlib.sha256(data).hexdigest())


def _check_id(example_id: str) -> str:
    path = PurePosixPath(example_id)
    if not example_id or path.is_absolute() or ".." in path.parts or "\0" in example_id or len(path.name.encode()) > 200:
        raise ValueError(f"ids become file names below the output folder. Received: {example_id!r}")
    return example_id
