"""The report in a real browser: headless Chromium, driven by Selenium."""

import shutil
from pathlib import Path

import pytest
from fixture import fake_results

from megasbp.report.page import write_page

pytest.importorskip("selenium", reason="needs selenium (pip install selenium)")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="needs Chromium and its driver (apt-get install chromium chromium-driver)",
)
PHONE, DESK = (360, 740), (1400, 900)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # A container has neither the user namespaces of the sandbox nor a large /dev/shm.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, tmp_path: Path):
    """The page of nine triples, of which every third was dropped, as a file."""
    write_page(fake_results(), tmp_path / "report.html")
    browser.set_window_size(*DESK)
    browser.get((tmp_path / "report.html").as_uri())
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []


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
    browser.get((tmp_path / "page.html").as_uri())
    assert "undefinedName is not defined" in browser.get_log("browser")[0]["message"]


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


def test_nothing_is_wider_than_a_phone(opened):
    opened.set_window_size(*PHONE)
    wide = opened.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide <= 0


def test_links_lead_to_their_sections(opened):
    for link in opened.find_elements(By.CSS_SELECTOR, "nav a"):
        link.click()
        assert opened.find_element(By.ID, link.get_attribute("href").split("#")[1]).is_displayed()


def test_in_print_every_triple_stands_and_no_control(opened):
    printed = opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert printed == {}
    assert not opened.find_element(By.ID, "controls").is_displayed()
    assert opened.print_page()
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
