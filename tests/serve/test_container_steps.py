"""The steps of the Dockerfile, run as a script in an empty folder: what they install serves a model that is mounted.

Without EDGERAZOR_CONTAINER_STEPS=whole the dependencies are those of this environment, so that nothing is fetched.
"""

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgerazor.checkpoint import open_checkpoint
from edgerazor.core.registry import Registry
from tests.serve.serving import free_port
from tests.serve.test_container import ROOT, STEPS, last

PACKED = ROOT / "tests" / "fixtures" / "version_0_1" / "qwen3-int4-tied" / "packed"
WHOLE = os.environ.get("EDGERAZOR_CONTAINER_STEPS") == "whole"
PLACES = ("/opt/edgerazor", "/source", "/models")
pytestmark = [pytest.mark.subprocess, pytest.mark.slow, pytest.mark.llamacpp]


class Container:
    """What the steps make, in a folder that stands for the root of the image."""

    def __init__(self, root: Path):
        self.root, self.folder = root, root
        self.settings = {"PATH": os.environ["PATH"], "HOME": str(root / "tmp"), "TMPDIR": str(root / "tmp")}
        kept = ("PIP_", "SSL_", "LANG")
        self.settings |= {name: value for name, value in os.environ.items() if name.startswith(kept)}
        (root / "tmp").mkdir(parents=True)

    def placed(self, text: str) -> str:
        """With the places of the image under the folder."""
        for place in PLACES:
            text = re.sub(rf"(?<![\w.]){place}(?![\w-])", f"{self.root}{place}", text)
        return text

    def build(self) -> None:
        """Every step, but those that ask the base image's own package manager."""
        for step, rest in STEPS:
            getattr(self, f"_{step.lower()}", lambda rest: None)(rest)

    def _from(self, rest: str) -> None:
        self.folder = self.root

    def _workdir(self, rest: str) -> None:
        self.folder = Path(self.placed(rest))
        self.folder.mkdir(parents=True)

    def _copy(self, rest: str) -> None:
        if rest.startswith("--from=build "):
            source, target = rest.split()[1:]
            assert source == target and Path(self.placed(source)).is_dir()
            return
        *names, target = rest.split()
        for name in names:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, self.folder / target, ignore=ignored)
            else:
                shutil.copy(ROOT / name, self.folder / target / name)

    def _env(self, rest: str) -> None:
        for setting in shlex.split(rest):
            name, _, value = setting.partition("=")
            value = self.placed(value).replace("$PATH", self.settings["PATH"])
            self.settings[name] = str(self.root / "tmp") if value == "/tmp" else value

    def _arg(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        self.settings[name] = os.environ.get(name, value)

    def _run(self, rest: str) -> None:
        if rest.startswith("apt-get"):
            return
        command = self.placed(rest).replace("python -m venv", f"{sys.executable} -m venv")
        done = subprocess.run(
            ["bash", "-ec", command], cwd=self.folder, env=self.settings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if "-m venv" in command and not WHOLE:
            self._borrow()

    def _borrow(self) -> None:
        """Let the environment see what is installed here, and pip fetch nothing."""
        (packages,) = (self.root / "opt" / "edgerazor" / "lib").glob("python*/site-packages")
        for own in packages.glob("*setuptools*"):  # older than what torch asks for
            shutil.rmtree(own)
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        self.settings |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    @contextmanager
    def started(self, port: int) -> Iterator[subprocess.Popen[str]]:
        """The command of the image, on another port."""
        command = [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))]
        command = [self.placed(str(port) if word == last("EXPOSE") else word) for word in command]
        program = shutil.which(command[0], path=self.settings["PATH"])
        assert program == f"{self.root}/opt/edgerazor/bin/edgerazor"
        with subprocess.Popen(
            [program, *command[1:]],
            cwd=self.root,
            env=self.settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def is_healthy(self, port: int) -> bool:
        """What the health check says."""
        program, *words = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
        path = shutil.which(program, path=self.settings["PATH"])
        assert path is not None and path.startswith(str(self.root))
        words = [word.replace(last("EXPOSE"), str(port)) for word in words]
        return subprocess.run([path, *words], env=self.settings, capture_output=True, check=False).returncode == 0

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of everything but what lies in /tmp."""
        places = [path for path in self.root.rglob("*") if "tmp" not in path.relative_to(self.root).parts[:1]]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in places if path.is_file()}


def ask(port: int) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "def", "max_tokens": 3, "temperature": 0}))
    return json.loads(connection.getresponse().read())


def test_the_steps_give_a_server_that_answers_and_writes_nothing(tmp_path: Path, registry: Registry) -> None:
    pytest.importorskip("llama_cpp")
    container = Container(tmp_path / "image")
    container.build()
    models = tmp_path / "image" / "models"
    models.mkdir()
    exporter = registry.build(registry.params("exporter", "gguf", path=str(models / "model.gguf")))
    exporter.export(open_checkpoint(PACKED, registry=registry), models / "model.gguf")
    before, port = container.files(), free_port()
    assert not container.is_healthy(port)
    with container.started(port) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("playground"):
                break
        assert lines and lines[-1].startswith("playground"), "".join(lines)
        assert container.is_healthy(port)
        assert ask(port)["model"] == "model"
        process.send_signal(signal.Signals[last("STOPSIGNAL")])
        assert process.wait(60) == 0
    assert container.files() == before, "nothing is written outside /tmp"
