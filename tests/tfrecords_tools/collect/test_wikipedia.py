"""Class descriptions from a Wikipedia that answers from a dict, through the real client."""

import csv
import json

import pytest

httpx = pytest.importorskip("httpx", reason="needs the extra [collect]")
pytest.importorskip("wikipediaapi", reason="needs the extra [collect]")

from tfrecords_tools.collect.wikipedia import TextOptions, compose_texts, fetch_pages  # noqa: E402

ARTICLES = {
    "Tench": "The tench is a fish.[1] It lives in lakes. \n\n\n== Taxonomy ==\nText.\n\n\n== Description ==\nIt is olive-green."
    "\n\n\n=== Size ===\nUp to 70 cm.",
    "Banana": "A banana ( listen ) is a fruit.\nIt grows in {\\displaystyle x^{2}} clumps.",
    "Mug": "A mug.",
    "Crane": "Crane may refer to: a bird, or a machine.",
}
REDIRECTS = {"Doctor fish": "Tench"}


class FakeWikipedia:
    """Answers the API's queries as formats.md describes them; counts and records what it was asked."""

    def __init__(self):
        self.asked = []
        self.broken = set()

    def __call__(self, request):
        params = dict(request.url.params)
        title = params["titles"]
        self.asked.append((request.url.host, title, params["prop"]))
        assert "me@example.org" in request.headers["User-Agent"]
        if title in self.broken:
            return httpx.Response(200, json={"error": {"code": "maxlag"}})
        query = {}
        if title in REDIRECTS:
            query["redirects"] = [{"from": title, "to": REDIRECTS[title]}]
            title = REDIRECTS[title]
        if title not in ARTICLES:
            return httpx.Response(200, json={"query": {"pages": {"-1": {"ns": 0, "title": title, "missing": ""}}}})
        page = {"pageid": 42, "ns": 0, "title": title}
        if "extracts" in params["prop"]:
            page["extract"] = ARTICLES[title]
        else:
            page |= {"fullurl": f"https://example.org/wiki/{title}", "lastrevid": 7}
            if title == "Crane":
                page["pageprops"] = {"disambiguation": ""}
        return httpx.Response(200, json={"batchcomplete": "", "query": query | {"pages": {"42": page}}})


@pytest.fixture
def wikipedia():
    return FakeWikipedia()


@pytest.fixture
def fetch(tmp_path, wikipedia):
    def fetch(labels, **options):
        agent = "tests/1.0 (me@example.org)"
        transport = httpx.MockTransport(wikipedia)
        return fetch_pages(
            labels, tmp_path, agent, seconds_between=0, progress=False, transport=transport, max_retries=0, **options
        )

    return fetch


def composed(folder, labels, **options):
    counts = compose_texts(folder, labels, TextOptions(**options))
    lines = [json.loads(line) for line in (folder / "class_descriptions.jsonl").read_text("utf-8").splitlines()]
    with open(folder / "work_list.csv", encoding="utf-8") as file:
        work = {row["label"]: row for row in csv.DictReader(file)}
    return counts, {line["label"]: line for line in lines}, work


def test_each_label_gets_its_status(fetch):
    labels = ["Tench", "Doctor fish", "Crane", "Unicorn horn"]
    assert fetch(labels) == {"found": 1, "redirected": 1, "ambiguous": 1, "not_found": 1}


def test_text_is_summary_and_description_with_attribution(fetch, tmp_path):
    fetch(["Tench"])
    counts, texts, work = composed(tmp_path, ["Tench"])
    assert counts == {"described": 1}
    assert work == {}
    assert texts["Tench"] == {
        "label": "Tench",
        "text": "The tench is a fish . It lives in lakes . It is olive-green .",
        "title": "Tench",
        "url": "https://example.org/wiki/Tench",
        "revision": 7,
        "language": "en",
        "license": "CC BY-SA 4.0",
    }


def test_markup_that_extracts_leave_is_dropped(fetch, tmp_path):
    fetch(["Banana"])
    assert composed(tmp_path, ["Banana"])[1]["Banana"]["text"] == "A banana is a fruit . It grows in clumps ."


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sentences": 1}, "The tench is a fish ."),
        ({"paragraphs": 1, "strip_punctuation": True}, "The tench is a fish It lives in lakes"),
        ({"max_tokens": 3}, "The tench is"),
        ({"sections": (), "sentences": 9}, "The tench is a fish . It lives in lakes ."),
        ({"sections": ("size",)}, "The tench is a fish . It lives in lakes . Up to 70 cm ."),
    ],
)
def test_options_choose_the_text_without_asking_again(fetch, tmp_path, wikipedia, options, expected):
    fetch(["Tench"])
    num_asked = len(wikipedia.asked)
    assert composed(tmp_path, ["Tench"], **options)[1]["Tench"]["text"] == expected
    assert len(wikipedia.asked) == num_asked


def test_what_needs_a_decision_is_listed_and_not_described(fetch, tmp_path):
    labels = ["Crane", "Unicorn horn", "Mug", "Doctor fish", "Never asked"]
    fetch(labels[:4])
    counts, texts, work = composed(tmp_path, labels, min_tokens=5)
    assert set(texts) == {"Doctor fish"}
    assert {label: row["reason"] for label, row in work.items()} == {
        "Crane": "ambiguous",
        "Unicorn horn": "not_found",
        "Mug": "too_short",
        "Doctor fish": "redirected",
        "Never asked": "not_fetched",
    }
    assert "leads to 'Tench'" in work["Doctor fish"]["detail"]
    assert counts["described"] == 1


def test_override_decides_and_only_what_changed_is_asked_again(fetch, tmp_path, wikipedia):
    fetch(["Crane", "Mug"])
    wikipedia.asked.clear()
    assert fetch(["Crane", "Mug"], overrides={"Crane": "Tench"}) == {"found": 2}
    assert {title for _, title, _ in wikipedia.asked} == {"Tench"}
    assert composed(tmp_path, ["Crane"])[1]["Crane"]["title"] == "Tench"


def test_override_of_an_unknown_label_is_an_error(fetch):
    with pytest.raises(ValueError, match="overrides name 'Tenhc'"):
        fetch(["Tench"], overrides={"Tenhc": "Tench"})


def test_second_run_asks_nothing_but_what_failed(fetch, wikipedia):
    wikipedia.broken = {"Mug"}
    assert fetch(["Tench", "Mug"]) == {"found": 1, "error": 1}
    wikipedia.broken, wikipedia.asked = set(), []
    assert fetch(["Tench", "Mug"]) == {"found": 2}
    assert {title for _, title, _ in wikipedia.asked} == {"Mug"}


def test_line_that_a_kill_cut_off_is_fetched_again(fetch, tmp_path, wikipedia):
    fetch(["Tench", "Mug"])
    path = tmp_path / "pages.jsonl"
    path.write_text(path.read_text()[:-20])
    wikipedia.asked.clear()
    assert fetch(["Tench", "Mug"]) == {"found": 2}
    assert {title for _, title, _ in wikipedia.asked} == {"Mug"}


def test_another_language_is_asked_at_its_own_wikipedia(fetch, wikipedia):
    fetch(["Tench"])
    fetch(["Tench"], language="fi")
    assert {host.partition(".")[0] for host, _, _ in wikipedia.asked} == {"en", "fi"}


def test_user_agent_is_required(tmp_path):
    with pytest.raises(ValueError, match="user agent with a contact"):
        fetch_pages(["Tench"], tmp_path, "x")
