"""Chromium without a window, for tests marked `browser`."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PROGRAMS = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
MARKS = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not all(PROGRAMS), reason="needs chromium and chromedriver: make browser"),
]


@contextmanager
def chromium() -> Iterator[Any]:
    """A driver whose log of the console can be read."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,800"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(PROGRAMS[1]))
    try:
        yield made
    finally:
        made.quit()


def set_width(driver: Any, width: int) -> None:
    """As on a phone of that width."""
    metrics = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
