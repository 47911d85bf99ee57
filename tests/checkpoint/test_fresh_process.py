"""A checkpoint is opened by Python alone, in a process in which nothing else has run."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgerazor.checkpoint import pack_model
from edgerazor.core.registry import Registry
from edgerazor.schemas.recipe import load_recipe
from tests.families import family_model

# What exporters ask Transformers for.
SCRIPT = """
import sys
import edgerazor
from transformers import AutoConfig
checkpoint = edgerazor.open_checkpoint(sys.argv[1])
print(AutoConfig.from_pretrained(checkpoint.folder).model_type)
"""


@pytest.mark.subprocess
def test_transformers_knows_the_model_type_of_an_opened_checkpoint(registry: Registry, tmp_path: Path) -> None:
    family_model("mobilellm").save_pretrained(tmp_path / "float")
    rules = [{"match": "*.mlp.*", "quantizer": {"name": "int", "bits": 4, "group_size": 32}}]
    section = {"model": {"name_or_path": str(tmp_path / "float")}, "quantization": {"weights": rules}}
    pack_model(load_recipe(section, registry=registry), registry=registry, output=tmp_path / "packed")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "packed")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "mobilellm\n", done.stderr
