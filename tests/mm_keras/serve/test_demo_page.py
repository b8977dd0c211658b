"""The demo's page, clicked through in a headless Chromium, on a run that learns new classes and whose dataset is there."""

import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf
import uvicorn

from mm_keras.runs.export_assets import EXTRA, first_records, write_assets
from mm_keras.runs.run_folder import RunFolder
from mm_keras.runs.serving import ServingModule
from mm_keras.serve.app import Server, make_app, make_batcher_of
from mm_keras.serve.demo.routes import add_demo
from mm_keras.serve.models import Models
from mm_keras.serve.observing import Metrics
from mm_keras.serve.options import ServerOptions
from mm_keras.serve.run_server import find_source, listen
from tests.mm_keras.serve.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to click with"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def address(classes_run, tmp_path_factory):
    run = RunFolder(shutil.copytree(classes_run, tmp_path_factory.mktemp("demo") / "tags"))
    model, features = run.load_model()
    module = ServingModule(model, features)
    signatures = {"serving_default": module.signature(), "embed": module.signatures()["embed"]}
    tf.saved_model.save(module, str(run.export / "1"), signatures=signatures)
    extra = run.export / "1" / EXTRA
    extra.mkdir()
    raw = first_records(run.dataset(None).split("test"), features, 8)
    write_assets(extra, "tags", features, raw, ["serving_default"])
    options, metrics = ServerOptions(poll=0), Metrics()
    server = Server(Models([find_source(str(run.path))], make_batcher_of(options, metrics)), options, metrics)
    running = uvicorn.Server(uvicorn.Config(make_app(server, add_demo), log_config=None))
    listening = listen("127.0.0.1", 0)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    running.should_exit = True
    thread.join(20)
    listening.close()


@pytest.fixture
def browse(address):
    """A function: opens the page, when the model is there."""
    opened = []

    def browse(**options):
        browser = Browser(f"{address}/", **options)
        opened.append(browser)
        browser.wait("document.querySelectorAll('#samples button').length")
        return browser

    yield browse
    for browser in opened:
        browser.close()


def _text(browser, selector):
    return browser.run(f"document.querySelector('{selector}').innerText")


def test_a_sample_is_classified_and_explained(browse, address, tmp_path):
    browser = browse()
    assert _text(browser, "#name") == "tags"
    assert browser.run("document.querySelectorAll('#samples button').length") == 6
    browser.click("#samples button")
    browser.wait("document.body.dataset.done")
    assert browser.run("document.querySelectorAll('#labels li').length") == 5
    assert "%" in _text(browser, "#labels li")
    browser.wait("document.querySelectorAll('#near li').length")
    for card in ("inputs", "words", "regions", "near"):
        assert not browser.run(f"document.getElementById('{card}-card').hidden"), card
    assert browser.run("document.querySelector('#near img').src").startswith("data:image/jpeg")
    own = ("data:", "blob:", "about:", address)
    assert [url for url in browser.requests if not url.startswith(own)] == []
    assert browser.problems == []


def test_a_picture_and_a_text_of_ones_own(browse, tmp_path, encode_image):
    (tmp_path / "mine.png").write_bytes(encode_image(np.full((50, 80, 3), 200, "uint8"), "PNG"))
    browser = browse()
    browser.click("#go")
    assert browser.wait("document.getElementById('error').innerText") == "Give a picture or a text first."
    browser.choose_file("#picture", tmp_path / "mine.png")
    browser.wait("document.querySelector('#preview img')?.naturalWidth == 80")
    browser.run("document.querySelector('textarea').focus()")
    browser.type("oak")
    browser.press("Enter", modifiers=2)
    browser.wait("document.body.dataset.done")
    assert "oak" in _text(browser, "#words")
    browser.click("#clear")
    assert browser.run("document.querySelectorAll('#labels li').length") == 0
    assert browser.problems == []


def test_a_new_class_takes_part_at_once(browse):
    browser = browse()
    browser.run("document.querySelector('textarea').focus()")
    browser.type("purple velvet")
    browser.run("document.getElementById('class-label').focus()")
    browser.type("velvet")
    browser.press("Tab")
    browser.type("oak")
    browser.press("Tab")
    assert browser.run("document.activeElement.id") == "class-pictures"
    browser.press("Tab")
    assert browser.run("document.activeElement.id") == "class-add"
    browser.press("Enter")
    browser.wait("document.getElementById('class-told').innerText.includes('takes part')", 90)
    browser.wait("document.body.dataset.done")
    assert browser.run(
        "fetch('classify?top=100', {method: 'POST', body: example()}).then(a => a.json())"
        ".then(a => a.labels.some(each => each.label == 'velvet'))"
    )
    browser.run("document.getElementById('class-label').value = 'velvet'")
    browser.run("document.getElementById('class-text').value = 'again'")
    browser.click("#class-add")
    assert "is a class already" in browser.wait(
        "document.getElementById('class-told').innerText.includes('already') && document.getElementById('class-told').innerText"
    )


def test_a_new_class_is_known_by_its_pictures(browse):
    browser = browse()
    browser.click("#samples button")
    browser.wait("document.body.dataset.done")
    browser.run(
        "fetch(document.querySelector('#samples img').src).then(a => a.blob()).then(blob => {"
        " const files = new DataTransfer(); files.items.add(new File([blob], 'a.jpg', { type: 'image/jpeg' }));"
        " document.getElementById('class-pictures').files = files.files;"
        " document.getElementById('class-label').value = 'pictured'; })"
    )
    browser.click("#class-add")
    browser.wait("document.getElementById('class-told').innerText.includes('takes part')", 90)
    assert browser.run("document.getElementById('class-pictures').files.length") == 0
    assert browser.run(
        "fetch('classify?top=100', {method: 'POST', body: example()}).then(a => a.json())"
        ".then(a => a.labels.some(each => each.label == 'pictured'))"
    )
    assert browser.problems == []


@pytest.mark.parametrize("size", [(390, 800), (1440, 900)])
def test_nothing_is_wider_than_the_window(browse, size):
    browser = browse(size=size, dark=True)
    browser.click("#samples button")
    browser.wait("document.body.dataset.done")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_all_controls_are_reached_by_the_keyboard(browse):
    browser = browse()
    reached = set()
    for _ in range(40):
        browser.press("Tab")
        reached.add(browser.run("document.activeElement.id || document.activeElement.closest('section')?.id"))
    assert {"picture", "text-title", "text-description", "go", "clear", "samples-card", "class-label", "class-add"} <= reached
