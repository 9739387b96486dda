"""The report in a real browser: headless Chromium, driven by Selenium."""

from pathlib import Path

import pytest
from fixture import fake_results
from page_browser import DESK, PHONE, messages, needs_browser, open_page, overflow, running_browser
from swept import make_sweep

from megasbp.report.page import write_page
from megasbp.report.sweep_page import write_sweep

pytest.importorskip("selenium", reason="needs selenium (pip install selenium)")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser():
    with running_browser() as driver:
        yield driver


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page of nine triples, of which every third was dropped."""
    write_page(fake_results(), tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.fixture
def opened(browser, page: Path):
    """That page, in the browser."""
    open_page(browser, page)
    yield browser
    assert messages(browser) == []


def place(browser) -> str:
    return browser.find_element(By.ID, "place").text


def shown(browser) -> list[str]:
    """Titles of the triples that can be seen."""
    triples = browser.find_elements(By.CLASS_NAME, "triple")
    return [one.find_element(By.TAG_NAME, "h3").text for one in triples if one.is_displayed()]


def fill(browser, name: str, words: str) -> None:
    field = browser.find_element(By.ID, f"{name}-filter")
    field.clear()
    field.send_keys(words)


def test_an_error_of_the_page_is_seen(browser, tmp_path: Path):
    (tmp_path / "page.html").write_text("<script>undefinedName</script>")
    open_page(browser, tmp_path / "page.html")
    assert "undefinedName is not defined" in messages(browser)[0]


def test_one_triple_after_the_other(opened):
    assert (place(opened), shown(opened)) == ("1 of 9", ["River 0"])
    opened.find_element(By.ID, "next").click()
    assert (place(opened), shown(opened)) == ("2 of 9", ["River 1"])
    opened.find_element(By.ID, "next").send_keys(Keys.ARROW_RIGHT)
    assert (place(opened), shown(opened)) == ("3 of 9", ["River 2"])
    opened.find_element(By.ID, "previous").click()
    opened.find_element(By.ID, "previous").click()
    assert not opened.find_element(By.ID, "previous").is_enabled()


@pytest.mark.parametrize(
    ("filters", "expected", "first"),
    [
        ({"verdict": "Dropped"}, "1 of 3", ["River 2"]),
        ({"verdict": "Accepted"}, "1 of 6", ["River 0"]),
        ({"similarity": "0.61"}, "1 of 3", ["River 6"]),
        ({"shortest": "60"}, "1 of 4", ["River 5"]),
        ({"longest": "50"}, "1 of 2", ["River 0"]),
        ({"verdict": "Dropped", "similarity": "0.61"}, "1 of 1", ["River 8"]),
        ({"text": "river 4"}, "1 of 1", ["River 4"]),
        ({"text": "nowhere"}, "none fits", []),
    ],
)
def test_filters(opened, filters, expected, first):
    for name, value in filters.items():
        if name == "verdict":
            opened.find_element(By.ID, "verdict-filter").send_keys(value)
        else:
            fill(opened, name, value)
    assert (place(opened), shown(opened)) == (expected, first)


def test_a_filter_taken_back_shows_all_again(opened):
    fill(opened, "similarity", "0.9")
    assert place(opened) == "none fits"
    field = opened.find_element(By.ID, "similarity-filter")
    field.send_keys(Keys.BACKSPACE * len("0.9"))
    assert place(opened) == "1 of 9"


def test_copied_stretches_are_marked(opened):
    marks = opened.find_element(By.CSS_SELECTOR, ".triple .made").find_elements(By.TAG_NAME, "mark")
    text = opened.find_element(By.CSS_SELECTOR, ".triple .made p").text
    assert [(mark.get_attribute("class"), mark.text) for mark in marks] == [
        ("from-corpus", text[:20]),
        ("from-seed", text[49:70]),
        ("from-corpus", text[70:90]),
    ]


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_nothing_is_wider_than_the_screen(browser, page: Path, size):
    open_page(browser, page, size)
    assert browser.execute_script("return window.innerWidth") == size[0]
    assert overflow(browser) <= 0
    assert messages(browser) == []


def test_what_is_wider_than_a_phone_is_seen(browser, tmp_path: Path):
    (tmp_path / "page.html").write_text('<!doctype html><p style="width: 500px">wide')
    open_page(browser, tmp_path / "page.html", PHONE)
    assert overflow(browser) > 100


def test_the_page_of_a_sweep_fits_a_phone_whatever_was_swept(browser, tmp_path: Path):
    long = {"corpus.paths": ["a_folder_with_a_long_name/" * 4], "pairing.embedder": "x" * 120}
    write_sweep(make_sweep(tmp_path, long, {**long, "pairing.embedder": "minilm"}))
    open_page(browser, tmp_path / "report.html", PHONE)
    assert overflow(browser) <= 0
    assert messages(browser) == []


def test_links_lead_to_their_sections(opened):
    for link in opened.find_elements(By.CSS_SELECTOR, "nav a"):
        link.click()
        assert opened.find_element(By.ID, link.get_attribute("href").split("#")[1]).is_displayed()


def test_in_print_every_triple_stands_and_no_control(opened):
    fill(opened, "text", "river 4")
    assert shown(opened) == ["River 4"]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert shown(opened) == [f"River {number}" for number in range(9)]
        assert not opened.find_element(By.ID, "controls").is_displayed()
        assert opened.print_page()
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown(opened) == ["River 4"]
