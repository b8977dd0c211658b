"""The page in a real browser, without a network: no error, nothing that is missing or cut off, and nothing in anybody's way."""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
AXE = Path(os.environ.get("AXE_CORE", Path(sys.prefix) / "node_modules" / "axe-core" / "axe.min.js"))

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium with its chromedriver"),
    pytest.mark.skipif(not importlib.util.find_spec("selenium"), reason="selenium is not installed"),
]
_BROKEN = """return [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt)"""
_OPEN = """document.querySelectorAll("details").forEach(each => each.open = true)"""
_WIDTH = """return document.documentElement.scrollWidth"""


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "disable-sync"):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")  # no network
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def page(browser, reported):
    browser.get((reported / "report" / "report.html").as_uri())
    return browser


def _set_width(browser, width, dark=False):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


@pytest.mark.parametrize("width", [390, 1280])
def test_page_opens_without_an_error_and_fits_the_window(page, width):
    _set_width(page, width)
    page.execute_script(_OPEN)
    assert page.get_log("browser") == []
    assert page.execute_script(_BROKEN) == []
    assert page.execute_script(_WIDTH) <= width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_has_no_serious_violation_of_axe(page, dark):
    if not AXE.is_file():
        pytest.skip(f"axe-core is not at {AXE}; AXE_CORE names another place")
    _set_width(page, 1280, dark)
    page.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    page.refresh()
    page.execute_script(_OPEN)
    page.execute_script(AXE.read_text("utf-8"))
    page.set_script_timeout(60)
    found = page.execute_async_script("axe.run(document).then(arguments[arguments.length - 1])")
    serious = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"][:3]])
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == [], json.dumps(serious, indent=1)


def test_tables_are_sorted_by_their_heads(page):
    from selenium.webdriver.common.by import By

    _set_width(page, 1280)
    table = page.find_element(By.CSS_SELECTOR, "#classes table.sortable")
    head = next(each for each in table.find_elements(By.CSS_SELECTOR, "thead th") if each.text.startswith("support"))
    head.find_element(By.TAG_NAME, "button").click()
    column = head.get_property("cellIndex")
    cells = [float(row.find_elements(By.XPATH, "*")[column].get_attribute("data-value")) for row in _rows(table)]
    assert cells == sorted(cells, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.find_element(By.TAG_NAME, "button").click()
    again = [float(row.find_elements(By.XPATH, "*")[column].get_attribute("data-value")) for row in _rows(table)]
    assert again == sorted(cells)


def _rows(table):
    return table.find_elements("css selector", "tbody tr")
