"""Two CPU processes (gloo) train what one process trains: DDP and FSDP2, under `accelerate launch`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.commands import succeed
from tests.ranks import free_port
from tests.runs import recipe, write_recipe

pytestmark = pytest.mark.subprocess

STEPS = 4
CONFIGURATIONS = {
    "ddp": {"distributed_type": "MULTI_GPU", "num_processes": 2},
    "fsdp2": {
        "distributed_type": "FSDP",
        "num_processes": 2,
        "fsdp_config": {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_transformer_layer_cls_to_wrap": "Qwen3DecoderLayer",
            "fsdp_reshard_after_forward": True,
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        },
    },
}


def write(folder: Path, name: str, *, processes: int) -> Path:
    """The recipe of a run; the same eight rows make a step whatever the number of processes."""
    training = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 8 // processes,
        "learning_rate": 1e-3,
        "save_steps": STEPS,
        "start": "calibrated",  # the first process finds it; the other waits
    }
    return write_recipe(folder / f"{name}.yaml", recipe(folder, training=training))


def launch(folder: Path, name: str) -> dict:
    """What a run in several processes says of itself."""
    write(folder, name, processes=2)
    settings = {"compute_environment": "LOCAL_MACHINE", "use_cpu": True, "mixed_precision": "no", "num_machines": 1}
    settings |= {"main_process_port": free_port(), "machine_rank": 0, **CONFIGURATIONS[name]}
    (folder / f"accelerate-{name}.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"accelerate-{name}.yaml"]
    command += ["-m", "edgerazor", "train", f"{name}.yaml", "--output", name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / name / "metrics.json").read_text())


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    succeed("train", write(tmp_path, "one", processes=1), "--output", tmp_path / "one")
    one = json.loads((tmp_path / "one" / "metrics.json").read_text())
    losses = [entry["loss"] for entry in one["history"] if "loss" in entry]
    for name, sharding in (("ddp", None), ("fsdp2", "fsdp")):
        two = launch(tmp_path, name)
        assert (two["processes"], two["sharding"]) == (2, sharding)
        assert [entry["loss"] for entry in two["history"] if "loss" in entry] == pytest.approx(losses, rel=1e-4)
        assert two["evaluation"]["eval_loss"] == pytest.approx(one["evaluation"]["eval_loss"], rel=1e-4)
        assert two["evaluation"]["eval_tokens"] == one["evaluation"]["eval_tokens"]
        assert (tmp_path / name / "packed" / "edgerazor.json").exists()
