"""One report of the trained run, made once, and what tests ask a page."""

import json
import shutil
from html.parser import HTMLParser

import pytest

from mm_keras.report.report import PARTS, report
from tests.mm_keras.shared_folder import shared_folder


class Page(HTMLParser):
    """The parts of a page that tests ask for."""

    def __init__(self, html: str):
        super().__init__()
        self.html, self.ids, self.texts, self.addresses, self.tags = html, [], [], [], []
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._hidden += tag in ("style", "script")
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and value:
                self.addresses.append(value)

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data):
        if not self._hidden:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="session")
def read_page():
    return lambda path: Page(path.read_text("utf-8"))


@pytest.fixture(scope="session")
def reported(tmp_path_factory, trained_run):
    """A run folder with a report of all parts on the split "test"."""

    def make(folder):
        shutil.copytree(trained_run, folder)
        report(folder, split="test", parts=PARTS)

    return shared_folder(tmp_path_factory, "reported", make)


@pytest.fixture(scope="session")
def content(reported):
    """What the report's JSON holds."""
    return json.loads((reported / "report" / "report.json").read_text("utf-8"))
