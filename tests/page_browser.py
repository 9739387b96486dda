"""Headless Chromium, driven by Selenium, for tests that open a page."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER and importlib.util.find_spec("selenium")),
    reason="needs Chromium and its driver (apt-get install chromium chromium-driver), "
    "and selenium (pip install selenium)",
)
PHONE, DESK = (360, 740), (1400, 900)


@contextmanager
def running_browser() -> Iterator[Any]:
    """The driver of a browser of its own."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # A container has neither the user namespaces of the sandbox nor a large /dev/shm.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(browser: Any, path: Path, size: tuple[int, int] = DESK) -> None:
    """Opens a file in a window of that size; a window itself cannot be as narrow as a phone."""
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(path.as_uri())


def messages(browser: Any) -> list[str]:
    """What the page's console has said since it was last asked."""
    return [entry["message"] for entry in browser.get_log("browser")]


def overflow(browser: Any) -> int:
    """Pixels by which the page is wider than the screen."""
    return browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
