"""Which recipe `pack` takes for a model that is on a hub; the hub is a small server on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.runs import save_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PREFIX = "/somebody/tiny/resolve/"
SIZES = [f"--set=preset.group_sizes.{key}={size}" for key, size in (("weights", 32), ("activations", 32))]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a hub that holds one model, `somebody/tiny`."""
    folder = save_model(tmp_path_factory.mktemp("hub"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = folder / self.path.rpartition("/")[2].partition("?")[0]
            found = self.path.startswith(PREFIX) and path.is_file()
            content = path.read_bytes() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(content)))
            if found:
                self.send_header("ETag", f'"{path.name}-{len(content)}"')
                self.send_header("X-Repo-Commit", COMMIT)
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def pack(name: str, hub: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["pack", name, "--preset", "1.58-bit", *SIZES, "--set=preset.group_sizes.kv_cache=16"]
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(folder / "cache"), "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-m", "edgerazor", *command, "--output", str(folder / "packed")],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.subprocess
def test_a_hub_model_that_is_not_in_the_cache_is_packed_by_preset(hub: str, tmp_path: Path) -> None:
    done = pack("somebody/tiny", hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bits per quantized weight" in done.stdout
    assert (tmp_path / "packed" / "model.safetensors").exists()


@pytest.mark.subprocess
def test_a_hub_that_cannot_be_reached_is_one_message(hub: str, tmp_path: Path) -> None:
    done = pack("somebody/tiny", hub, tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("somebody/tiny: no usable config.json: there is no such folder, and no model of that name")
    assert not (tmp_path / "packed").exists()
