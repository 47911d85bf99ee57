"""What a server allows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeSettings:
    """Limits and doors of a server.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        api_key: that clients have to send; None lets everybody in who reaches the address.
        origins: of other web pages that may call this server, such as https://example.org; `*` is all of them.
        queue: requests of a model that may wait while another one is written.
        max_prompt_tokens: of one request; None is the context of the model.
        max_new_tokens: of one answer, whatever a request asks for.
        max_body_bytes: of one request.
        grace_seconds: that answers may still take once the server is told to end.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    origins: tuple[str, ...] = ()
    queue: int = 32
    max_prompt_tokens: int | None = None
    max_new_tokens: int = 4096
    max_body_bytes: int = 4 << 20
    grace_seconds: float = 10.0

    @property
    def is_local(self) -> bool:
        """Whether the server listens on this machine alone."""
        return self.host in LOOPBACK


LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
