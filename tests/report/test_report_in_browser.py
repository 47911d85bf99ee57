"""A report in Chromium: nothing is fetched, it fits a phone, both themes are readable."""

from pathlib import Path

import pytest

from tests.browser import MARKS, chromium, set_width
from tests.commands import succeed

pytest.importorskip("selenium", reason="needs the extra browser")
pytestmark = MARKS
COLOURS = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"


def test_it_fits_and_asks_for_nothing(trained: Path, tmp_path: Path) -> None:
    succeed("report", trained, "--no-answers", "--output", tmp_path / "report.html")
    with chromium() as driver:
        found = []
        for theme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": theme}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            set_width(driver, 360)
            driver.get(f"file://{tmp_path / 'report.html'}")
            assert driver.execute_script("return document.documentElement.scrollWidth") == 360
            assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
            found.append(driver.execute_script(COLOURS))
        assert found[0] == ["rgb(28, 33, 40)", "rgb(255, 255, 255)"] and found[1] != found[0]
        assert not driver.get_log("browser")
