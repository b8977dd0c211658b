"""Makes class descriptions from Wikipedia in two steps: it fetches articles, and composes texts of them.

Fetching can be resumed, and each article is fetched once. Composing needs no network and can be repeated with other options.

    output/
        pages.jsonl                a line for each label: status, article, revision, summary, sections
        class_descriptions.jsonl   a line for each label with a description: its text, and what attribution needs
        work_list.csv              the labels that need a decision, and why; overrides (label -> article title) decide

A label is looked up as the exact title of an article. Spelling suggestions and search are not used: they led to an article
about Canada for "Banana" in the ImageD texts. Labels whose article is not found, ambiguous or too short are listed.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tfrecords_tools.dataset.atomic_file import atomic_file
from tfrecords_tools.dataset.info import CLASS_DESCRIPTIONS_FILE
from tfrecords_tools.progress import progress_bar

PAGES_FILE = "pages.jsonl"
WORK_LIST_FILE = "work_list.csv"
_KEYS = {"label", "status", "language", "asked_for"}
_LICENSE = "CC BY-SA 4.0"
_LEFT_OVER = re.compile(r"\{\\displaystyle[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|\[\d+\]|\(\s*listen\s*\)")


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """How an article becomes a class description.

    Attributes:
        sections: titles of sections that follow the summary, if the article has them. Breeds and species have a "Description".
        paragraphs, sentences: how many of the first paragraphs and sentences are kept; None keeps all.
        min_tokens: labels with a shorter text are put on the work list.
        max_tokens: how many of the first word tokens (by NLTK) are kept; None keeps all. ImageD has 400–512.
        strip_punctuation: whether tokens without a letter or digit are dropped.
    """

    sections: tuple[str, ...] = ("Description",)
    paragraphs: int | None = None
    sentences: int | None = None
    min_tokens: int = 1
    max_tokens: int | None = 512
    strip_punctuation: bool = False


def fetch_pages(
    labels: Sequence[str],
    output: str | Path,
    user_agent: str,
    language: str = "en",
    overrides: Mapping[str, str] | None = None,
    seconds_between: float = 0.5,
    progress: bool = True,
    **client_options,
) -> Counter:
    """Fetches the article of each label, unless pages.jsonl holds it already under the same title.

    Args:
        labels: the names of the classes.
        output: the folder to fill.
        user_agent: tells Wikipedia who asks, with a contact: "my-project/1.0 (me@example.org)". Requests without a contact are
            blocked.
        language: the language of the Wikipedia.
        overrides: maps labels to titles of articles, for labels whose article has another title.
        seconds_between: the seconds to wait between two articles.
        progress: whether to show a progress bar on standard error.
        client_options: passed on to `wikipediaapi.Wikipedia` (max_retries, retry_wait, transport, …).

    Returns:
        the number of labels of each status: "found", "redirected", "ambiguous", "not_found", "error".

    Raises:
        ValueError: for an override of something that is none of the labels.

    Example:
        >>> fetch_pages(["Mug", "Crane"], "texts", "my-project/1.0 (me@example.org)", overrides={"Crane": "Crane (bird)"})
        Counter({'found': 2})
    """
    overrides = dict(overrides or {})
    unknown = sorted(set(overrides) - set(labels))
    if unknown:
        raise ValueError(f"overrides name {unknown[0]!r}, which is none of the {len(labels)} labels")
    wiki = _make_wikipedia(user_agent, language, client_options)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    pages = {page["label"]: page for page in _read_pages(output)}
    labels_to_fetch = [
        label
        for label in dict.fromkeys(labels)
        if label not in pages
        or pages[label]["status"] == "error"
        or (pages[label]["language"], pages[label]["asked_for"]) != (language, overrides.get(label, label))
    ]
    bar = progress_bar("asking", "labels", len(labels_to_fetch), progress)
    with open(output / PAGES_FILE, "a", encoding="utf-8") as file, bar:
        file.write("\n")  # ends a line that a kill may have cut off
        for index, label in enumerate(labels_to_fetch):
            if index:
                time.sleep(seconds_between)
            title = overrides.get(label, label)
            page = {"label": label, "language": language, "asked_for": title} | _fetch_page(wiki, title)
            file.write(json.dumps(page) + "\n")
            file.flush()
            bar.update()
    pages = {page["label"]: page for page in _read_pages(output)}
    return Counter(pages[label]["status"] for label in dict.fromkeys(labels))


def compose_texts(output: str | Path, labels: Sequence[str], options: TextOptions = TextOptions()) -> Counter:
    """Writes class_descriptions.jsonl and work_list.csv from the articles that were fetched.

    Args:
        output: the folder that `fetch_pages` filled.
        labels: the names of the classes, in the order of the lines to write.
        options: see `TextOptions`.

    Returns:
        the number of labels that are "described", and the number of each reason in the work list.

    Example:
        >>> compose_texts("texts", ["Mug", "Crane"], TextOptions(max_tokens=256))
        Counter({'described': 2})
    """
    output = Path(output)
    pages = {page["label"]: page for page in _read_pages(output)}
    counts: Counter = Counter()
    with (
        atomic_file(output / CLASS_DESCRIPTIONS_FILE) as texts_path,
        atomic_file(output / WORK_LIST_FILE) as work_path,
        open(texts_path, "w", encoding="utf-8", errors="backslashreplace") as texts,
        open(work_path, "w", encoding="utf-8", errors="backslashreplace", newline="") as work,
    ):
        work_list = csv.writer(work)
        work_list.writerow(["label", "reason", "detail"])
        for label in dict.fromkeys(labels):
            page = pages.get(label, {"status": "not_fetched", "detail": "run the collector again"})
            reason, detail = page["status"], page.get("detail", "")
            if reason in ("found", "redirected"):
                tokens = _compose(page, options)
                if len(tokens) < options.min_tokens:
                    reason, detail = "too_short", f"{page['title']}: {len(tokens)} tokens, min_tokens is {options.min_tokens}"
                else:
                    facts = {key: page[key] for key in ("title", "url", "revision", "language")}
                    line = {"label": label, "text": " ".join(tokens), **facts, "license": _LICENSE}
                    texts.write(json.dumps(line, ensure_ascii=False) + "\n")
                    counts["described"] += 1
            if reason != "found":
                counts[reason] += 1
                work_list.writerow([label, reason, detail])
    return counts


def _make_wikipedia(user_agent: str, language: str, client_options: dict):
    try:
        import wikipediaapi
    except ImportError as error:
        raise ImportError("collecting from Wikipedia needs its client: pip install 'mm_keras[collect]'") from error

    class Wikipedia(wikipediaapi.Wikipedia):
        def _info_params(self, page):
            # The library does not ask for the page property that marks pages which only list meanings.
            params = super()._info_params(page)
            return params | {"prop": params["prop"] + "|pageprops", "ppprop": "disambiguation"}

    try:
        return Wikipedia(user_agent, language, **client_options)
    except AssertionError as error:
        raise ValueError(f"Wikipedia wants a user agent with a contact, and a language. Received: {user_agent!r}") from error


def _fetch_page(wiki, title: str) -> dict:
    try:
        page = wiki.page(title)
        if not page.exists():
            return {"status": "not_found", "detail": f"no article is called {title!r}"}
        facts = {"title": page.title, "url": page.fullurl, "revision": page.lastrevid}
        if "disambiguation" in (page._attributes.get("pageprops") or {}):
            return {"status": "ambiguous", "detail": f"{page.title!r} lists several meanings: {page.fullurl}", **facts}
        is_same = page.title.replace("_", " ").casefold() == title.replace("_", " ").casefold()
        return {
            "status": "found" if is_same else "redirected",
            "detail": "" if is_same else f"{title!r} leads to {page.title!r}",
            **facts,
            "summary": page.summary,
            "sections": list(_flatten(page.sections)),
        }
    except Exception as error:  # from the client and below it; it raises KeyError where Wikipedia answers with an error message
        return {"status": "error", "detail": f"{type(error).__name__}: {error}"}


def _flatten(sections) -> Iterator[dict]:
    for section in sections:
        yield {"title": section.title, "text": section.text}
        yield from _flatten(section.sections)


def _read_pages(output: Path) -> Iterator[dict]:
    """Yields the pages of pages.jsonl in order; a later page of a label replaces an earlier one.

    Blank lines, and a line that was cut off by a kill or is damaged, are skipped: their labels are asked for again.
    """
    path = output / PAGES_FILE
    if path.is_file():
        for line in path.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                page = json.loads(line)
                if isinstance(page, dict) and page.keys() >= _KEYS:
                    yield page


def _compose(page: dict, options: TextOptions) -> list[str]:
    from nltk.tokenize import NLTKWordTokenizer, PunktSentenceTokenizer

    titles = {title.casefold() for title in options.sections}
    parts = [page["summary"], *(section["text"] for section in page["sections"] if section["title"].casefold() in titles)]
    text = _LEFT_OVER.sub(" ", "\n".join(parts))
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n") if paragraph.strip()][: options.paragraphs]
    sentences = [sentence for paragraph in paragraphs for sentence in PunktSentenceTokenizer().tokenize(paragraph)]
    tokens = [token for sentence in sentences[: options.sentences] for token in NLTKWordTokenizer().tokenize(sentence)]
    if options.strip_punctuation:
        tokens = [token for token in tokens if any(character.isalnum() for character in token)]
    return tokens[: options.max_tokens]
