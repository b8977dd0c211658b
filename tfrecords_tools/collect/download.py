"""Downloads images from a list of URLs in parallel. A ledger records the outcome of each URL, so a download can be resumed.

output/
    ledger.sqlite          a row for each URL: status, error class, attempts, file, bytes, sha256; and the refused pairs
    <id>.jpg               the image; the ending tells its format, and an id may contain slashes

A problem with one id or URL is recorded as its outcome, and the download goes on. Only a disk that is full or fails stops the
download, which can then be resumed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath

import filelock

from tfrecords_tools.collect.fetch import PERMANENT, TEMPORARY, FetchError, FetchOptions, fetch
from tfrecords_tools.collect.http_client import HttpClient
from tfrecords_tools.collect.ledger import Ledger, Outcome, Refused
from tfrecords_tools.dataset.atomic_file import write_bytes
from tfrecords_tools.progress import progress_bar

LEDGER_FILE = "ledger.sqlite"
_LOCK_FILE = ".lock"
_NAME_TAKEN = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)
_OPEN_IMAGES = "https://open-images-dataset.s3.amazonaws.com/{name}.jpg"
_SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


@dataclasses.dataclass(frozen=True)
class DownloadOptions:
    """How a list of URLs is downloaded.

    Attributes:
        workers: how many requests run at the same time.
        attempts: how often a URL is requested while its errors are temporary ones.
        backoff: the seconds to wait before the second attempt. They are doubled before each further one, and varied at random.
            If a server says how long to wait (Retry-After), that counts instead.
        max_wait: the most seconds to wait, even if a server asks for more.
        fetch: the limits of one request.
    """

    workers: int = 16
    attempts: int = 4
    backoff: float = 1.0
    max_wait: float = 60.0
    fetch: FetchOptions = dataclasses.field(default_factory=FetchOptions)


def download(
    urls: Iterable[tuple[str, str] | Refused],
    output: str | Path,
    options: DownloadOptions = DownloadOptions(),
    retry_failed: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, int]:
    """Downloads the images of all URLs that the ledger in `output` does not list as done or failed.

    Args:
        urls: (id, URL) pairs. Ids are unique and become file names. A pair is refused if its id cannot be a file name, or has
            another URL already; a `Refused` is recorded as it is. The same pairs given again resume a download.
        output: the folder of the images and the ledger.
        options: see `DownloadOptions`.
        retry_failed: classes of errors; URLs that failed with one of them are tried again.
        progress: whether to show a progress bar on standard error.

    Returns:
        the number of URLs that are "done", the number of each error class, and that of pairs that were "refused".

    Raises:
        ValueError: for an unknown error class, or a ledger.sqlite that is no ledger or damaged.
        RuntimeError: if another process is downloading into the same folder.
        OSError: if the disk is full or fails.

    Example:
        >>> download([("mug", "https://example.org/mug.jpg")], "pictures")
        {'done': 1}
    """
    unknown = sorted(set(retry_failed) - {*TEMPORARY, *PERMANENT})
    if unknown:
        raise ValueError(f"error classes are {sorted((*TEMPORARY, *PERMANENT))}. Received: {unknown[0]!r}")
    output = Path(output)
    client = HttpClient(options.fetch.user_agent)
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output), Ledger(output / LEDGER_FILE) as ledger, client:
        ledger.add(map(_checked, urls))
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


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keeps other processes from downloading into the folder while the block runs."""
    lock = filelock.FileLock(output / _LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RuntimeError(f"another process is downloading into {output}; wait for it, or choose another folder") from None
    try:
        yield
    finally:
        (output / _LOCK_FILE).unlink(missing_ok=True)
        lock.release()


def open_images_urls(names: Iterable[str]) -> list[tuple[str, str] | Refused]:
    """Turns lines such as `train/0a1b…`, the format of the Open Images downloader, into (id, URL) pairs; `.jpg` may follow.

    A line of another form is refused.
    """
    pairs: list[tuple[str, str] | Refused] = []
    for number, line in enumerate(names, start=1):
        name = line.strip().removesuffix(".jpg")
        split, _, image_id = name.partition("/")
        if split not in ("train", "validation", "test", "challenge2018") or not image_id.isalnum():
            reason = f"expected train|validation|test|challenge2018/<image id>. Received: {line[:200]!r}"
            pairs.append(Refused(f"line {number}", "", reason))
            continue
        pairs.append((name, _OPEN_IMAGES.format(name=name)))
    return pairs


def _record_finished(running: dict[Future, str], ledger: Ledger, bar) -> None:
    """Waits until at least one request has ended, and writes the outcomes of all requests that have ended into the ledger."""
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    except OSError as error:
        if error.errno not in _NAME_TAKEN:
            raise
        return Outcome("failed", "bad_id", f"{path.name} cannot be written beside the images of other ids: {error}", attempt)
    file = path.relative_to(output).as_posix()
    return Outcome("done", "", "", attempt, file, len(data), hashlib.sha256(data).hexdigest())


def _checked(pair: tuple[str, str] | Refused) -> tuple[str, str] | Refused:
    """The pair if it can be downloaded, otherwise why it is refused."""
    if isinstance(pair, Refused):
        return pair
    example_id, url = (text.encode("utf-8", "backslashreplace").decode() for text in pair)
    path = PurePosixPath(example_id)
    too_long = any(len(part.encode()) > 200 for part in path.parts)
    if not example_id or path.is_absolute() or ".." in path.parts or "\0" in example_id or too_long:
        return Refused(example_id[:200], url, f"ids become file names below the output folder. Received: {example_id[:200]!r}")
    return example_id, url
