"""Two processes on one output: one is told who holds it, or both end well; what stays is whole, and nothing else."""

import os
import re
import socket
from pathlib import Path

import pytest
import yaml

from edgerazor.core.claims import claimed
from tests.commands import fail, succeed
from tests.convert.originals import published
from tests.faults.cases import COMMANDS, Command, make_inputs, output_of
from tests.forked_commands import end, start

REFUSED = re.compile(r"process \d+ on .* is writing to it|already holds a run")
FILLED_IN_PLACE = {"train", "cache-teacher", "quickstart"}
LONG: dict[str, Command] = {
    **COMMANDS,
    "allocate": lambda folder, output: [
        *("allocate", folder / "recipe.yaml", "--target-bits", 2, "--output", output.parent.parent / "allocated.yaml")
    ],
    "quickstart": lambda folder, output: ["quickstart", "--smoke", "--output", output],
}
SHORT: dict[str, Command] = {
    "init": lambda folder, output: ["init", output, "--force"],
    "schema": lambda folder, output: ["schema", "--output", output],
    "convert-recipe": lambda folder, output: ["convert-recipe", folder / "old.yaml", "--force", "--output", output],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("two"))
    (folder / "old.yaml").write_text(yaml.safe_dump(published("qwen3-0.6b", "1.88")))
    return folder


@pytest.mark.parametrize("name", LONG)
def test_the_second_process_is_told_who_holds_the_output(name: str, folder: Path, tmp_path: Path) -> None:
    command = LONG[name](folder, output_of(name, tmp_path))
    output = Path(str(command[command.index("--output") + 1]))
    with claimed(output, inside=name in FILLED_IN_PLACE):
        held = sorted(tmp_path.rglob("*"))
        said = fail(*command)
        assert sorted(tmp_path.rglob("*")) == held
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert said == f"{output}: {holder} is writing to it; wait for its end, or choose another output\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("name", [*COMMANDS, *SHORT])
def test_two_at_once_leave_what_one_leaves(name: str, folder: Path, tmp_path: Path) -> None:
    command, logs = {**COMMANDS, **SHORT}[name], [tmp_path / "first.log", tmp_path / "second.log"]
    alone, both = (output_of(name, tmp_path / number) for number in ("alone", "both"))
    for output in (alone, both):
        output.parent.mkdir(parents=True)
    succeed(*command(folder, alone))
    codes = [end(child) for child in [start(command(folder, both), log) for log in logs]]
    said = [log.read_text() for log in logs]
    assert 0 in codes and set(codes) <= {0, 2} and "Traceback" not in "".join(said), said
    assert all(code == 0 or REFUSED.search(text) for code, text in zip(codes, said, strict=True)), said
    one, two = ({path.relative_to(output.parent) for path in output.parent.rglob("*")} for output in (alone, both))
    assert one == two
    for path in (path for path in one if path.suffix in (".safetensors", ".gguf", ".jsonl", ".onnx", ".data", ".yaml")):
        assert (alone.parent / path).read_bytes() == (both.parent / path).read_bytes(), path
