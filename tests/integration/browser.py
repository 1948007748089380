"""A real browser without a window: Debian's Chromium, driven by Selenium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

WAIT_SECONDS = 30
POLL_SECONDS = 0.05


@contextmanager
def chromium(*options: str) -> Iterator[Chrome]:
    """Start a browser, or skip the test where there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium chromium-driver")
    chosen = ChromeOptions()
    chosen.binary_location = program
    for option in (
        "--headless=new",
        "--no-sandbox",  # a container's root may not make one
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--window-size=1000,900",
        *options,
    ):
        chosen.add_argument(option)
    chosen.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = Chrome(options=chosen, service=Service(driver))
    try:
        made.set_page_load_timeout(120)
        yield made
    finally:
        made.quit()


def text_of(browser: Chrome, css: str = "main") -> str:
    """Return the text of an element, once it is there."""
    return str(
        WebDriverWait(browser, WAIT_SECONDS, POLL_SECONDS).until(lambda it: it.find_element(By.CSS_SELECTOR, css)).text
    )


def wait_for_text(browser: Chrome, text: str) -> None:
    """Wait for a page that says something."""
    WebDriverWait(browser, WAIT_SECONDS, POLL_SECONDS).until(
        lambda it: text in it.find_element(By.TAG_NAME, "main").text
    )


def press(browser: Chrome, label: str) -> None:
    """Press the button or follow the link of this name, and wait for the next page."""
    before: Any = browser.find_element(By.TAG_NAME, "html")
    found = browser.find_elements(By.XPATH, f"//button[normalize-space()='{label}'] | //a[normalize-space()='{label}']")
    assert len(found) == 1, (label, text_of(browser))
    found[0].click()
    WebDriverWait(browser, 120, POLL_SECONDS).until(lambda it: it.find_element(By.TAG_NAME, "html") != before)


def write(browser: Chrome, name: str, text: str) -> None:
    """Write into a field of this name."""
    field = browser.find_element(By.NAME, name)
    field.clear()
    field.send_keys(text)
