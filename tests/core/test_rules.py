"""The first rule that matches takes a module, and a long recipe does not make a plan slow."""

import sys
from fnmatch import fnmatchcase
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Qwen3Config

from edgerazor.core.plan import build_plan
from edgerazor.core.registry import Registry
from edgerazor.core.rules import MatchedRules
from edgerazor.schemas.quantization import QuantizationSection, WeightRule
from edgerazor.schemas.recipe import load_recipe

LAYERS = 28
TERNARY = {"name": "ternary", "group_size": 32}
names = st.text("ab.*?[]!", min_size=1, max_size=4)


@given(st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, max_size=4), st.sets(names))
def test_the_first_rule_with_a_glob_that_matches_wins(globs: list[list[str]], modules: set[str]) -> None:
    matched = MatchedRules([WeightRule(match=tuple(match), quantizer=None) for match in globs], sorted(modules))
    expected = {}
    for name in sorted(modules):
        taken = [index for index, match in enumerate(globs) if any(fnmatchcase(name, glob) for glob in match)]
        if taken:
            expected[name] = taken[0]
    assert matched.rule_of == expected


def written_rows(registry: Registry) -> QuantizationSection:
    """Seven rules a layer, as an allocation of rows writes them, one glob with an alternative in each, and the rest."""
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    rules: list[Any] = [
        {"match": f"*.layers.{layer}.*.{part}", "quantizer": TERNARY} for layer in range(LAYERS) for part in parts
    ]
    rules += [{"match": ["*.embed_tokens", "lm_head"], "quantizer": TERNARY}]
    raw = {"model": {"name_or_path": "unused", "family": "qwen3"}, "quantization": {"weights": rules}}
    return load_recipe(raw, registry=registry).quantization


def test_every_glob_meets_every_module_once(registry: Registry) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": LAYERS, "vocab_size": 96}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen3Config(**shape, **heads))
    quantization, adapter = written_rows(registry), registry.adapter_for("qwen3")
    evaluations = 0

    def count(frame: Any, event: str, function: Any) -> None:
        nonlocal evaluations
        evaluations += event == "c_call" and getattr(function, "__name__", "") == "match"

    sys.setprofile(count)
    try:
        plan = build_plan(model, quantization, adapter=adapter, registry=registry)
    finally:
        sys.setprofile(None)
    globs = sum("*" in glob for rule in quantization.weights for glob in rule.match)
    assert len(quantization.weights) == 7 * LAYERS + 1 and len(plan.modules) == 7 * LAYERS + 2
    assert globs * len(plan.modules) <= evaluations < 1.1 * globs * len(plan.modules)
