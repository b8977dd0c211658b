import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from tfrecords_tools.cli.main import main
from tfrecords_tools.dataset.labels import LabelVocabulary
from tfrecords_tools.inspect.stats import compute_stats
from tfrecords_tools.inspect.stats_page import write_page
from tfrecords_tools.packing.pack import PackOptions

HOSTILE = """</td><script>alert(1)</script><img src='http://a.example/x' onerror="alert(1)">&amp; $x^{$ 猫"""


class _Page(HTMLParser):
    """What a browser makes of a page: its tags, the cells of its tables, its text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.samples: list[str] = []
        self.text = ""
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True
        if ("class", "sample") in attrs:
            self.samples.append("")

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data
        elif self.samples:
            self.samples[-1] += data

    def sources(self, kind: str) -> list[bytes]:
        """Decoded contents of the pictures of one kind."""
        found = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        return [base64.b64decode(source.split(",")[1]) for source in found if source.startswith(f"data:{kind};base64,")]


@pytest.fixture
def page_of(tmp_path):
    """A function: dataset folder -> its page, parsed."""

    def make(folder):
        write_page(folder, compute_stats(folder, progress=False), tmp_path / "page.html")
        return _Page((tmp_path / "page.html").read_text("utf-8"))

    return make


def test_page_holds_the_numbers_of_all_splits(page_of, packed, make_example, small_jpeg):
    examples = [
        make_example(
            f"{['google', 'flickr'][i % 2]}/{i}",
            texts={"title": ["red mug"] if i % 4 else [], "about": [f"a mug number {i}"]},
            labels=["mug"] if i < 30 else [],
            image=small_jpeg if i % 2 else None,
            split="train" if i < 40 else "val",
        )
        for i in range(50)
    ]
    info, folder = packed(examples, text_fields=("title", "about"))
    page = page_of(folder)
    sizes = {split: f"{info.shards(split)[0].num_bytes:,}" for split in ("train", "val")}
    assert page.rows[:3] == [
        ["split", "examples", "shards", "bytes", "without image", "without title", "without about", "without label"],
        ["train", "40", "1", sizes["train"], "50.0%", "25.0%", "0.0%", "25.0%"],
        ["val", "10", "1", sizes["val"], "50.0%", "30.0%", "0.0%", "100.0%"],
    ]
    assert page.rows[3:6] == [
        ["source", "examples", "without image", "without title", "without about"],
        ["flickr", "20", "0.0%", "0.0%", "0.0%"],
        ["google", "20", "100.0%", "50.0%", "0.0%"],
    ]
    assert page.rows[6:9] == [
        ["field", "names its label", "in another example too", "with other labels there"],
        ["title", "73.3%", "100.0%", "100.0%"],
        ["about", "75.0%", "0.0%", "0.0%"],
    ]
    assert page.rows[9:13] == [["mug", "30"], ["mug", "30"], ["red", "30"], ["mug", "40"]]
    assert "Examples per labelmin 30, median 30, p95 30, max 30" in page.text
    assert "Words per text: titlemin 2, median 2, p95 2, max 2" in page.text
    assert "max 0; 1 with none" in page.text  # in val no label has an example


def test_plots_are_drawn_for_what_is_there(page_of, packed, rows, small_jpeg, make_example):
    _, folder = packed(rows, name="texts")
    texts = page_of(folder).sources("image/svg+xml")
    assert len(texts) == 3  # examples per label, labels per example, words
    _, folder = packed([*rows, make_example("x", image=small_jpeg)], name="both")
    both = page_of(folder).sources("image/svg+xml")
    assert len(both) == 7
    assert {ElementTree.fromstring(svg).tag for svg in both} == {"{http://www.w3.org/2000/svg}svg"}


def test_samples_show_records_with_and_without_image_text_and_label(page_of, packed, make_example, small_jpeg):
    examples = [
        make_example("all there", image=small_jpeg),
        make_example("no picture", labels=["a", "b"]),
        make_example("no text", image=small_jpeg, texts={}),
        make_example("no name", labels=[]),
    ]
    _, folder = packed(examples, multi_label=True)
    page = page_of(folder)
    samples = {lines[-1]: [line for line in lines[:-1] if line] for lines in (s.strip().split("\n") for s in page.samples)}
    assert samples["all there"] == ["a", "title title of all there"]
    assert samples["no picture"] == ["no image", "a, b", "title title of no picture"]
    assert samples["no text"] == ["a", "title missing"]
    assert samples["no name"] == ["no image", "no label", "title title of no name"]
    assert len(page.sources("image/jpeg")) == 2


def test_samples_are_few_and_small(page_of, packed, make_example, encode_image):
    noise = encode_image(np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8))
    examples = [make_example(str(i), image=noise, texts={"title": ["long " * 500]}) for i in range(40)]
    _, folder = packed(examples)
    page = page_of(folder)
    assert len(page.samples) == 24
    assert max(map(len, page.sources("image/jpeg"))) < 20_000 < len(noise)
    assert max(map(len, page.samples)) < 400
    assert all(int(attributes["width"]) <= 160 for _, attributes in page.tags if "width" in attributes)


def test_hostile_texts_are_shown_and_never_run(page_of, packed, make_example, small_jpeg):
    fields = {"texts": {HOSTILE: [HOSTILE]}, "labels": [HOSTILE], "image": small_jpeg}
    examples = [make_example(f"{HOSTILE}/{i}", **fields) for i in range(3)]
    examples += [make_example(f"other/{i}", **fields) for i in range(3)]
    _, folder = packed(examples, name="a & <b>", text_fields=(HOSTILE,))
    page = page_of(folder)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base", "a", "form", "svg"})
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("href", "srcset") for name in attributes), tag
        assert tag != "img" or re.match(r"data:image/(svg\+xml|jpeg);base64,[A-Za-z0-9+/=]+\Z", attributes["src"])
    assert "a & <b>" in page.text
    assert any(row[0] == HOSTILE for row in page.rows if len(row) == 2)  # the label
    assert any(row[0] == HOSTILE.split("/")[0] for row in page.rows)  # the source
    assert max(sample.count(HOSTILE) for sample in page.samples) == 4  # label, field, text and id


def test_page_is_one_file_that_loads_nothing(page_of, dataset, tmp_path):
    page_of(dataset)
    html = (tmp_path / "page.html").read_text("utf-8")
    assert "://" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    assert "@import" not in html
    assert """content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">""" in html


def test_equal_datasets_give_equal_pages(page_of, dataset, tmp_path):
    pages = []
    for _ in range(2):
        page_of(dataset)
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1]


def test_page_stays_small_with_10000_labels(page_of, packed, make_example, tmp_path):
    names = [f"tag {i}" for i in range(10_000)]
    examples = [make_example(str(i), labels=names[i::500]) for i in range(300)]
    packed(examples, PackOptions(fractions={"all": 1.0}), labels=LabelVocabulary(names), multi_label=True)
    page_of(tmp_path / "dataset")
    assert (tmp_path / "page.html").stat().st_size < 200_000
    assert "min 0, median 1, p95 1, max 1; 4,000 with none" in (tmp_path / "page.html").read_text("utf-8")


def test_broken_image_is_named_in_its_place(page_of, dataset, monkeypatch):
    def broken(*_):
        raise OSError("truncated")

    monkeypatch.setattr("PIL.Image.open", broken)
    assert "broken image: truncated" in page_of(dataset).samples[0]


def test_command_writes_the_page_beside_what_it_prints(call, dataset, tmp_path):
    status, out, _ = call(main, "stats", dataset, "--html", tmp_path / "deep" / "page.html")
    assert status == 0
    assert out.startswith("train: ")
    assert (tmp_path / "deep" / "page.html").read_text("utf-8").endswith("</body></html>\n")


def test_page_path_that_is_a_folder_is_an_error_before_anything_is_read(call, dataset, tmp_path):
    status, out, err = call(main, "stats", dataset, "--html", tmp_path)
    assert (status, out) == (2, "")
    assert err == f"tfrecords-tools: --html names the file to write; {tmp_path} is a folder\n"
