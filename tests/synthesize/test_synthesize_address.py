"""The address of a server, its key, and the model that it offers."""

import pytest
from synthesize_cases import ScriptedServer, echo

from edgerazor.errors import SynthesisError
from edgerazor.synthesize.connection import Connection, ServerAddress
from edgerazor.synthesize.server import find_model


def test_the_only_model_is_found() -> None:
    cases: list[tuple[tuple[str, ...] | None, str | None, str]] = [
        (("tiny",), None, "tiny"),
        (("a", "b"), "b", "b"),
        (None, "mine", "mine"),
    ]
    for models, asked, expected in cases:
        with (server := ScriptedServer(echo, models)).running():
            assert find_model(ServerAddress(server.url), asked) == expected
    for models, words in (
        ((), "does not say which models"),
        (("a", "b"), "offers a, b; choose"),
        (None, "404 Not Found"),
    ):
        with (server := ScriptedServer(echo, models)).running(), pytest.raises(SynthesisError, match=words):
            find_model(ServerAddress(server.url), None)


def test_nobody_there_is_said_at_once() -> None:
    server = ScriptedServer(echo)
    with server.running():
        pass
    # Whoever asks again says after how many attempts.
    with pytest.raises(SynthesisError, match=r"/v1: Connection refused$"):
        find_model(ServerAddress(server.url), "tiny")


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://x/v1", "http://", "http://x:port/v1", "http://x/v1?a=b", "http://u:p@x/v1", ""]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(SynthesisError, match=r"address of (a|the) server"):
        Connection(ServerAddress(url))


def test_a_key_with_a_line_break_is_refused() -> None:
    with pytest.raises(SynthesisError, match="holds characters that no header can"):
        Connection(ServerAddress("http://x/v1", api_key="secret\n"))
