"""The files of the playground: open without a key, and asking nothing of other hosts."""

import re

import pytest

from tests.serve.serving import Parrot, serving

FILES = {
    "/": "text/html; charset=utf-8",
    "/playground/style.css": "text/css; charset=utf-8",
    "/playground/main.js": "text/javascript; charset=utf-8",
    "/playground/icon.svg": "image/svg+xml",
}


def test_pages_are_open_and_say_what_they_may_load() -> None:
    with serving(Parrot(), api_key="secret") as address:
        for path, kind in FILES.items():
            status, headers, _ = address.send(path)
            assert (status, headers["content-type"]) == (200, kind)
            assert headers["content-security-policy"].startswith("default-src 'self'; ")
            assert headers["x-content-type-options"] == "nosniff"
        for path in ("/playground/", "/playground/index.html", "/playground/../pages.py", "/playground/..%2fpages.py"):
            assert address.send(path)[0] == 404
        _, _, page = address.send("/")
        named = re.findall(r'(?:src|href)="([^"]+)"', page.decode())
        assert named and all(address.send(f"/{name}")[0] == 200 for name in named)
        assert not re.search(r"<style|style=|<script(?![^>]* src=)|\son\w+=", page.decode())


@pytest.mark.parametrize("name", ["main.js", "client.js", "text.js", "turns.js", "store.js", "style.css"])
def test_no_file_names_another_host(name: str) -> None:
    with serving(Parrot()) as address:
        _, _, content = address.send(f"/playground/{name}")
    assert re.findall(rb"https?://[^'\"\s)]+", content) in ([], [b"http://www.w3.org/2000/svg"])
    assert b"innerHTML" not in content
