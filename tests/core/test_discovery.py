"""Discovery of plugins: real distributions on the path, conflicts named, a broken plugin alone in its misery."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgerazor.core.discovery import load_plugins
from edgerazor.errors import PluginError, RecipeError
from edgerazor.schemas.recipe import load_recipe

Install = Callable[..., str]

HEADER = """
from typing import ClassVar, Literal
from edgerazor.core.hookspecs import hookimpl
from edgerazor.schemas.components import AdapterParams, ComponentParams, LossParams, QuantizerParams

class FP4Params(QuantizerParams):
    target: ClassVar[str] = "{module}.code:FP4"
    name: Literal["{namespace}.fp4"] = "{namespace}.fp4"
    group_size: int = 64
"""
GOOD = """
@hookimpl
def edgerazor_quantizers():
    return [FP4Params]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install(package, namespace, body)`: a distribution on the path whose module declares what `body` says."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(package: str, namespace: str, body: str, *, entry_points: str | None = None) -> str:
        # A module name of its own for every test, because modules stay imported.
        module = f"{package}_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{module}.py").write_text(
            HEADER.format(module=module, namespace=namespace) + body, encoding="utf-8"
        )
        information = tmp_path / f"{package}-2.1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.1\n", "utf-8")
        lines = entry_points or f"{namespace} = {module}\n"
        (information / "entry_points.txt").write_text(f"[edgerazor]\n{lines}", encoding="utf-8")
        return module

    return add


def plugin_error(namespace: str) -> str:
    plugin = next(plugin for plugin in load_plugins().plugins if plugin.namespace == namespace)
    assert plugin.error is not None
    assert plugin.components == []
    return plugin.error


def test_what_is_installed_later_is_found(install: Install) -> None:
    assert "acme.fp4" not in load_plugins().names("quantizer")
    install("acme", "acme", GOOD)
    assert "acme.fp4" in load_plugins().names("quantizer")


def test_a_third_party_is_found_with_version_and_components(install: Install) -> None:
    module = install("acme", "acme", GOOD)
    registry = load_plugins()
    plugin = next(plugin for plugin in registry.plugins if plugin.namespace == "acme")
    assert (plugin.module, plugin.version, plugin.components, plugin.error) == (
        module,
        "2.1",
        [("quantizer", "acme.fp4")],
        None,
    )
    assert "acme.fp4" in registry.names("quantizer")
    assert registry.versions()["acme"] == "2.1"
    assert "acme.fp4" not in load_plugins(external=False).names("quantizer")


def test_its_parameters_are_validated_like_ours(install: Install) -> None:
    install("acme", "acme", GOOD)
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            {
                "model": {"name_or_path": "x"},
                "quantization": {
                    "weights": [
                        {"match": "a", "quantizer": {"name": "acme.fp4", "group_sise": 3}},
                        {"match": "*", "quantizer": {"name": "acme.fp8"}},
                    ]
                },
            },
            registry=load_plugins(),
        )
    where = "recipe: quantization.weights"
    assert caught.value.problems == [
        f"{where}[0].quantizer: quantizer 'acme.fp4' has no 'group_sise'; did you mean 'group_size'?",
        f"{where}[1].quantizer: no quantizer named 'acme.fp8'; plugin 'acme' does not have it; "
        "did you mean 'acme.fp4'?",
    ]


def test_two_packages_with_one_namespace(install: Install) -> None:
    install("acme", "acme", GOOD)
    install("other", "acme", GOOD)
    with pytest.raises(
        PluginError, match=r"namespace 'acme' is claimed twice: by (acme and by other|other and by acme)"
    ):
        load_plugins()


def test_one_package_that_claims_a_namespace_twice(install: Install) -> None:
    install("acme", "acme", GOOD, entry_points="acme = json\nacme = abc\n")
    with pytest.raises(PluginError, match=r"namespace 'acme' is claimed twice"):
        load_plugins()


def test_two_adapters_for_one_model_type(install: Install) -> None:
    module = install(
        "acme",
        "acme",
        """
class MyQwen(AdapterParams):
    target: ClassVar[str] = "x:Y"
    model_types: ClassVar[tuple[str, ...]] = ("mine", "qwen3")
    name: Literal["acme.qwen"] = "acme.qwen"

@hookimpl
def edgerazor_adapters():
    return [MyQwen]
""",
    )
    message = (
        f"model type 'qwen3' is claimed by two adapters: 'qwen3' of edgerazor.adapters and 'acme.qwen' of {module}"
    )
    with pytest.raises(PluginError, match=message):
        load_plugins()


BROKEN = {
    "misspelt hook": (
        "@hookimpl\ndef edgerazor_quantisers():\n    return [FP4Params]\n",
        "edgerazor has no hook 'edgerazor_quantisers'; did you mean 'edgerazor_quantizers'?",
    ),
    "import fails": ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
    "hook raises": ("@hookimpl\ndef edgerazor_losses():\n    return 1 / 0\n", "ZeroDivisionError: division by zero"),
    "hook forgets to return": (
        "@hookimpl\ndef edgerazor_losses():\n    [FP4Params]\n",
        "edgerazor_losses returned None; expected a list of parameter classes",
    ),
    "an instance": (
        "@hookimpl\ndef edgerazor_quantizers():\n    return [3]\n",
        "edgerazor_quantizers returned 3; expected parameter classes, subclasses of ComponentParams",
    ),
    "wrong hook": (
        "@hookimpl\ndef edgerazor_losses():\n    return [FP4Params]\n",
        "edgerazor_losses returned FP4Params, which declares a quantizer",
    ),
    "nothing declared": ("", "declares nothing; mark its functions with @hookimpl"),
    "declared twice": (
        "@hookimpl\ndef edgerazor_quantizers():\n    return [FP4Params, FP4Params]\n",
        "declares quantizer 'bad.fp4' 2 times",
    ),
    "no target": (
        "class P(LossParams):\n    name: Literal['bad.p'] = 'bad.p'\n\n"
        "@hookimpl\ndef edgerazor_losses():\n    return [P]\n",
        "P has no target; expected 'package.module:Class'",
    ),
    "no name": (
        "class P(LossParams):\n    target: ClassVar[str] = 'a:B'\n\n"
        "@hookimpl\ndef edgerazor_losses():\n    return [P]\n",
        "P has no name; expected: name: Literal['…'] = '…'",
    ),
    "no model types": (
        "class P(AdapterParams):\n    target: ClassVar[str] = 'a:B'\n    name: Literal['bad.p'] = 'bad.p'\n\n"
        "@hookimpl\ndef edgerazor_adapters():\n    return [P]\n",
        "P has no model_types; expected those of config.json that it covers",
    ),
    "bare name": (
        "class P(LossParams):\n    target: ClassVar[str] = 'a:B'\n    name: Literal['p'] = 'p'\n\n"
        "@hookimpl\ndef edgerazor_losses():\n    return [P]\n",
        "loss 'p' must be named 'bad.…': bare names belong to edgerazor",
    ),
    "foreign namespace": (
        "class P(LossParams):\n    target: ClassVar[str] = 'a:B'\n    name: Literal['acme.p'] = 'acme.p'\n\n"
        "@hookimpl\ndef edgerazor_losses():\n    return [P]\n",
        "loss 'acme.p' must be named 'bad.…': bare names belong to edgerazor",
    ),
}


@pytest.mark.parametrize(("body", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_says_why_and_breaks_no_other(body: str, message: str, install: Install) -> None:
    install("bad", "bad", body)
    install("acme", "acme", GOOD)
    assert message in plugin_error("bad")
    registry = load_plugins()
    assert "acme.fp4" in registry.names("quantizer")
    assert "int" in registry.names("quantizer")
    with pytest.raises(PluginError, match=r"no quantizer named 'bad.fp4'; plugin 'bad' is broken: "):
        registry.params("quantizer", "bad.fp4")


def test_the_namespace_of_edgerazor_is_reserved(install: Install) -> None:
    install("thief", "edgerazor", GOOD)
    broken = [plugin.error for plugin in load_plugins().plugins if not plugin.built_in]
    assert broken == ["the namespace 'edgerazor' is reserved"]


def test_the_resolved_recipe_is_plain_data(install: Install) -> None:
    install("acme", "acme", GOOD)
    registry = load_plugins()
    recipe = load_recipe(
        {"model": {"name_or_path": "x"}, "quantization": {"weights": [{"match": "*", "quantizer": "acme.fp4"}]}},
        registry=registry,
    )
    again = load_recipe(json.loads(json.dumps(recipe.to_dict())), registry=registry)
    assert again == recipe
    assert again.to_dict()["quantization"]["weights"][0]["quantizer"] == {"name": "acme.fp4", "group_size": 64}
