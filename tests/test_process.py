"""Importing and calling the library leaves the process as it was: settings of a process belong to the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEPENDENCIES = "torch, transformers, transformers.trainer, accelerate, datasets, huggingface_hub, safetensors.torch"
STATE = """
import logging, os, signal, warnings
import {dependencies}
import torch._dynamo, torch._inductor.compile_fx
from transformers.utils import logging as transformers_logging
from datasets.utils import logging as datasets_logging

def state():
    return {{
        "environment": dict(os.environ),
        "filters": list(warnings.filters),
        "levels": {{name: logging.getLogger(name).level for name in (None, "transformers", "datasets", "torch.onnx")}},
        "bars of transformers": transformers_logging.is_progress_bar_enabled(),
        "bars of the hub": not huggingface_hub.utils.are_progress_bars_disabled(),
        "bars of datasets": not datasets.are_progress_bars_disabled(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "grad, dtype": (torch.is_grad_enabled(), torch.get_default_dtype()),
        "signals": {{number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}},
    }}

def compare(what):
    for name, value in state().items():
        assert value == before[name], f"{{what}} changes {{name}}: {{before[name]}} to {{value}}"

before = state()
"""
IMPORTS = """
import importlib, pkgutil
import edgerazor
from edgerazor.errors import PluginError
for module in pkgutil.walk_packages(edgerazor.__path__, "edgerazor."):
    if ".triton" not in module.name and not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except PluginError as error:  # of an extra that is too large for every test run
            assert ".[eval]" in str(error), error
compare("importing edgerazor")
"""
CALLS = """
import sys
from pathlib import Path
import edgerazor
from tests.runs import recipe

folder = Path(sys.argv[1])
registry = edgerazor.load_plugins(external=False)
training = {"max_steps": 2, "bf16": True, "extra": {"log_level": "info"}}
loaded = edgerazor.load_recipe(recipe(folder, training=training), registry=registry)
compare("load_recipe")
edgerazor.plan_recipe(loaded, registry=registry)
compare("plan_recipe")
edgerazor.pack_model(loaded, registry=registry, output=folder / "packed")
compare("pack_model")
edgerazor.load_model(folder / "packed")
compare("load_model")
edgerazor.train(loaded, registry=registry, output=folder / "run")
compare("train")
edgerazor.evaluate_checkpoint(folder / "run" / "packed", registry=registry)
compare("evaluate_checkpoint")
edgerazor.generate(folder / "run" / "packed", "def f", registry=registry)
compare("generate")
"""


@pytest.mark.subprocess
@pytest.mark.slow
def test_importing_and_calling_change_nothing(tmp_path: Path) -> None:
    source = STATE.format(dependencies=DEPENDENCIES) + IMPORTS + CALLS
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    command = [sys.executable, "-c", source, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
