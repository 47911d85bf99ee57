"""The container: what its files name exists, its check works, it runs as nobody on a file system that is read only.

The image itself is not built here: its base would come from a registry.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import succeed
from tests.serve.serving import Parrot, serving

ROOT = Path(__file__).parents[2]
STEPS = [
    re.sub(r"\\\n\s*", "", step).split(maxsplit=1)
    for step in re.findall(r"^(?!#)(?:.*\\\n)*.+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]


def last(name: str) -> str:
    """What the last step of this name says."""
    return [rest for step, rest in STEPS if step == name][-1]


def test_it_installs_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (asked,) = (found[1] for step, rest in STEPS if step == "RUN" and (found := re.search(r'"\.\[(.+)\]"', rest)))
    assert "serve" in asked.split(",") and set(asked.split(",")) <= extras.keys()
    copied = [place for step, rest in STEPS if step == "COPY" and "--from" not in rest for place in rest.split()[:-1]]
    assert copied and all((ROOT / place).exists() for place in copied)


def test_it_starts_the_command_with_options_that_it_has() -> None:
    program, command, *options = json.loads(last("ENTRYPOINT"))
    assert (program, command) == ("edgerazor", "serve")
    told = succeed("serve", "--help")
    assert all(option in told for option in options if option.startswith("--"))
    assert options[options.index("--host") + 1] == "0.0.0.0" and options[-1] == last("EXPOSE")


@pytest.mark.subprocess
def test_its_health_check_tells_a_server_that_answers_from_one_that_does_not() -> None:
    check = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    with serving(Parrot()) as address:
        program = check[2].replace("127.0.0.1:8000", f"127.0.0.1:{address.port}")
        assert subprocess.run([sys.executable, "-I", "-S", "-c", program], check=False).returncode == 0
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, check=False)
    assert done.returncode != 0


def test_nobody_runs_it_and_nothing_is_written() -> None:
    assert last("USER").isdecimal() and last("USER") != "0"
    for service in COMPOSE.values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["tmpfs"] == ["/tmp"]
        assert all(volume.endswith(":/models:ro") for volume in service["volumes"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert COMPOSE["llamacpp"]["profiles"] == ["llamacpp"]
