"""What SECURITY.md promises of our code: no pickle, no code of others, YAML that is data."""

import ast
from pathlib import Path

import pytest
import yaml

from edgerazor.schemas.files import _UniqueKeyLoader

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "edgerazor").rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "torch.hub.load", "numpy.load", "np.load", "os.system"}


def unsafe(source: str) -> set[str]:
    """What a source does that may run code from a file or from elsewhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & UNSAFE_MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} & UNSAFE_MODULES
        elif isinstance(node, ast.Call):
            found |= {ast.unparse(node.func)} & UNSAFE_CALLS
            found |= {"shell=True" for keyword in node.keywords if ast.unparse(keyword) == "shell=True"}
            if ast.unparse(node.func) == "yaml.load" and "Loader=_UniqueKeyLoader" not in ast.unparse(node):
                found.add("yaml.load")
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            found.add("trust_remote_code")
        if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            found.add("trust_remote_code")
    return found


def test_no_module_runs_code_from_a_file() -> None:
    found = {path.relative_to(ROOT).as_posix(): unsafe(path.read_text(encoding="utf-8")) for path in MODULES}
    assert not {name: things for name, things in found.items() if things}


def test_the_loader_of_recipes_makes_plain_data_only() -> None:
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.load("!!python/object/apply:os.getcwd []", Loader=_UniqueKeyLoader)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "torch.load('x', weights_only=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_what_is_unsafe_would_be_noticed(source: str) -> None:
    assert unsafe(source)
