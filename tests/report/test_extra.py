"""The report's extra can be asked for before anything long begins."""

import sys

import pytest

from edgerazor.errors import EdgeRazorError
from edgerazor.report.extra import check_report_extra


@pytest.mark.parametrize("name", ["jinja2", "matplotlib"])
def test_what_is_missing_is_named_with_the_extra_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EdgeRazorError, match=rf"the report needs {name}: run pip install '\.\[report\]'"):
        check_report_extra()


def test_an_extra_that_is_installed_passes() -> None:
    pytest.importorskip("matplotlib")
    check_report_extra()
