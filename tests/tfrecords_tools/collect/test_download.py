"""Downloads from a local server that does what servers of old URL lists do."""

import errno
import hashlib
import http.server
import io
import sqlite3
import threading
import time
from unittest import mock

import pytest
from PIL import Image

pytest.importorskip("httpx", reason="needs the extra [collect]")

from tfrecords_tools.collect.download import DownloadOptions, download, open_images_urls
from tfrecords_tools.collect.fetch import FetchOptions
from tfrecords_tools.collect.ledger import Ledger


def make_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 30).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = make_jpeg()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.lstrip("/").partition("?")[0]
        requests = self.server.requests
        requests[name] = requests.get(name, 0) + 1
        try:
            getattr(self, f"get_{name.partition('.')[0]}")(requests[name])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, status=200, body=b"", **headers):
        self.send_response(status)
        for key, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def get_good(self, _):
        assert self.headers["User-Agent"] and self.headers["Host"].startswith("127.0.0.1:")
        self.answer(body=JPEG)

    def get_moved(self, _):
        self.answer(302, Location="/good.jpg")

    def get_loop(self, _):
        self.answer(301, Location="/loop.jpg")

    def get_inward(self, _):
        self.answer(302, Location="http://[::1]:9/secret.jpg")

    def get_elsewhere(self, _):
        self.answer(302, Location="file:///etc/hostname")

    def get_missing(self, _):
        self.answer(404)

    def get_secret(self, _):
        self.answer(403)

    def get_odd(self, _):
        self.answer(418)

    def get_page(self, _):
        self.answer(body=b"<html>This photo is no longer available</html>", Content_Type="image/jpeg")

    def get_busy(self, count):
        self.answer(429, Retry_After=0) if count < 3 else self.answer(body=JPEG)

    def get_down(self, _):
        self.answer(503)

    def get_short(self, _):
        self.answer(body=JPEG[:100], Content_Length=len(JPEG))
        self.close_connection = True

    def get_liar(self, _):
        self.answer(body=JPEG, Content_Length=len(JPEG) // 2)
        self.close_connection = True

    def get_huge(self, _):
        self.answer(body=b"x", Content_Length=10**9)
        self.close_connection = True

    def get_endless(self, _):
        self.send_response(200)
        self.end_headers()
        for _ in range(200):
            self.wfile.write(b"x" * 2000)
        self.close_connection = True

    def get_drip(self, _):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def get_headers(self, _):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(60):
            self.wfile.write(b"X-%d: drip\r\n" % number)
            time.sleep(0.05)

    def get_untold(self, _):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(JPEG)
        time.sleep(1.5)
        self.close_connection = True

    def get_bracket(self, _):
        self.answer(302, Location="http://[")

    def get_control(self, _):
        self.answer(302, Location="/\x01.jpg")

    def get_stall(self, _):
        time.sleep(1.5)
        self.close_connection = True


@pytest.fixture(scope="module")
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def url_of(server):
    server.requests = {}
    return lambda name: f"http://127.0.0.1:{server.server_address[1]}/{name}.jpg"


def options(attempts=3, seconds=5.0, allow_private=True) -> DownloadOptions:
    fetch = FetchOptions(seconds=seconds, max_bytes=100_000, allow_private=allow_private)
    return DownloadOptions(workers=4, attempts=attempts, backoff=0.01, fetch=fetch)


def ledger_rows(folder) -> dict[str, sqlite3.Row]:
    database = sqlite3.connect(folder / "ledger.sqlite")
    database.row_factory = sqlite3.Row
    rows = {row["id"]: row for row in database.execute("SELECT * FROM urls")}
    database.close()
    return rows


@pytest.mark.parametrize(
    ("name", "error", "requests"),
    [
        ("missing", "not_found", 1),
        ("secret", "forbidden", 1),
        ("odd", "client_error", 1),
        ("page", "not_an_image", 1),
        ("liar", "not_an_image", 1),
        ("huge", "too_large", 1),
        ("endless", "too_large", 1),
        ("loop", "too_many_redirects", 6),
        ("elsewhere", "bad_url", 1),
        ("bracket", "bad_url", 1),
        ("down", "server_error", 3),
        ("short", "truncated", 3),
        ("control", "truncated", 3),
    ],
)
def test_failure_is_classed_and_only_temporary_ones_are_tried_again(tmp_path, server, url_of, name, error, requests):
    assert download([(name, url_of(name))], tmp_path, options(), progress=False) == {error: 1}
    row = ledger_rows(tmp_path)[name]
    assert (row["status"], row["error"], bool(row["detail"])) == ("failed", error, True)
    assert server.requests[f"{name}.jpg"] == requests
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.sqlite"]


@pytest.mark.parametrize("name", ["drip", "headers", "stall", "untold"])
def test_slow_server_is_given_up_after_the_time_limit(tmp_path, url_of, name):
    started = time.monotonic()
    assert download([(name, url_of(name))], tmp_path, options(attempts=1, seconds=0.5), progress=False) == {"timeout": 1}
    assert time.monotonic() - started < 1.4


@pytest.mark.parametrize("name", ["good", "moved", "busy"])
def test_image_is_stored_with_its_sha256(tmp_path, url_of, name):
    assert download([(f"a/{name}", url_of(name))], tmp_path, options(), progress=False) == {"done": 1}
    row = ledger_rows(tmp_path)[f"a/{name}"]
    assert (tmp_path / row["file"]).read_bytes() == JPEG
    assert (row["file"], row["bytes"], row["sha256"]) == (f"a/{name}.jpg", len(JPEG), hashlib.sha256(JPEG).hexdigest())
    assert row["attempts"] == (3 if name == "busy" else 1)


def test_addresses_that_are_not_public_are_refused(tmp_path, server, url_of):
    urls = [("loopback", url_of("good")), ("name", "http://localhost:1/x.jpg"), ("link", "http://169.254.169.254/latest")]
    assert download(urls, tmp_path, options(allow_private=False), progress=False) == {"private_address": 3}
    assert server.requests == {}
    assert "--allow_private" in ledger_rows(tmp_path)["loopback"]["detail"]


_BAD_URLS = ["", "ftp://host/x", "http://", "http://host:99999/x", "photo.jpg", "http://[", "http://127.0.0.1/\x01"]
_BAD_URLS += [f"http://127.0.0.1/{'x' * 70_000}"]


@pytest.mark.parametrize("url", _BAD_URLS, ids=lambda url: url[:20])
def test_malformed_url_is_a_bad_url(tmp_path, url):
    assert download([("x", url)], tmp_path, options(), progress=False) == {"bad_url": 1}


@pytest.mark.parametrize("pair", [("x", "x.jpg/y"), ("x.jpg/y", "x")])
def test_ids_that_need_a_file_and_a_folder_of_one_name_do_not_stop_the_others(tmp_path, url_of, pair):
    urls = [(example_id, url_of("good")) for example_id in (*pair, "z", "ledger.sqlite/a")]
    assert download(urls, tmp_path, options(), progress=False) == {"bad_id": 2, "done": 2}
    assert ledger_rows(tmp_path)["z"]["status"] == "done"


@pytest.mark.parametrize("error", [MemoryError("out of it"), TypeError("of a decoder"), RecursionError("deep"), OSError("odd")])
def test_image_whose_decoder_fails_in_any_way_is_the_outcome_of_that_one(tmp_path, url_of, monkeypatch, error):
    def broken(data, settings):
        raise error

    monkeypatch.setattr("tfrecords_tools.collect.fetch.prepare_image", broken)
    assert download([("x", url_of("good"))], tmp_path, options(), progress=False) == {"not_an_image": 1}
    assert type(error).__name__ in ledger_rows(tmp_path)["x"]["detail"]


def test_full_disk_and_errors_of_this_program_stop_the_download(tmp_path, url_of, monkeypatch):
    for error in (OSError(errno.ENOSPC, "No space left on device"), NameError("ours")):
        monkeypatch.setattr("tfrecords_tools.collect.download.write_bytes", mock.Mock(side_effect=error))
        with pytest.raises(type(error), match=str(error.args[-1])):
            download([("x", url_of("good"))], tmp_path, options(), progress=False)
    monkeypatch.undo()
    assert download([("x", url_of("good"))], tmp_path, options(), progress=False) == {"done": 1}


def test_second_download_into_a_folder_is_told_that_there_is_another(tmp_path, url_of):
    def urls():
        with pytest.raises(RuntimeError, match="another process is downloading into"):
            download([], tmp_path, options(), progress=False)
        yield "x", url_of("good")

    assert download(urls(), tmp_path, options(), progress=False) == {"done": 1}


def test_damaged_ledger_is_named_with_what_to_do(tmp_path, url_of):
    (tmp_path / "ledger.sqlite").write_bytes(b"no ledger " * 1000)
    with pytest.raises(ValueError, match=r"ledger\.sqlite is no ledger, or damaged: .* delete it"):
        download([("x", url_of("good"))], tmp_path, options(), progress=False)


def test_second_run_fetches_only_what_is_not_done(tmp_path, server, url_of):
    first = [("one", url_of("good")), ("two", url_of("missing"))]
    download(first, tmp_path, options(), progress=False)
    server.requests.clear()
    counts = download([*first, ("three", url_of("moved"))], tmp_path, options(), progress=False)
    assert counts == {"done": 2, "not_found": 1}
    assert server.requests == {"moved.jpg": 1, "good.jpg": 1}


def test_failed_urls_are_retried_by_error_class(tmp_path, server, url_of):
    urls = [("down", url_of("down")), ("gone", url_of("missing"))]
    download(urls, tmp_path, options(attempts=1), progress=False)
    server.requests.clear()
    download([], tmp_path, options(attempts=1), retry_failed=["server_error"], progress=False)
    assert server.requests == {"down.jpg": 1}
    assert ledger_rows(tmp_path)["down"]["attempts"] == 2


def test_unknown_error_class_lists_those_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"'timeout'.*Received: 'slow'"):
        download([], tmp_path, retry_failed=["slow"])


@pytest.mark.parametrize("example_id", ["../up", "/etc/x", "", "a/../b", "x" * 201, "x" * 201 + "/a", "a\0b"])
def test_id_that_leads_out_of_the_folder_is_refused_and_the_others_are_fetched(tmp_path, url_of, example_id):
    for _ in range(2):
        urls = [(example_id, url_of("good")), ("mug", url_of("good"))]
        assert download(urls, tmp_path, options(), progress=False) == {"done": 1, "refused": 1}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert "ids become file names" in ledger.refused()[0].reason


def test_id_with_two_urls_keeps_the_first(tmp_path, url_of):
    urls = [("x", url_of("good")), ("x", url_of("moved")), ("y", url_of("good"))]
    assert download(urls, tmp_path, options(), progress=False) == {"done": 2, "refused": 1}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.refused() == [("x", urls[1][1], f"id 'x' has two URLs: {urls[0][1]} and {urls[1][1]}")]


def test_open_images_names_become_urls():
    (name, url), refused = open_images_urls(["train/000a1249af2bc5f0.jpg\n", "tests/0a"])
    assert name == "train/000a1249af2bc5f0"
    assert url.endswith("/train/000a1249af2bc5f0.jpg")
    assert refused[:2] == ("line 2", "")
    assert "Received: 'tests/0a'" in refused.reason
