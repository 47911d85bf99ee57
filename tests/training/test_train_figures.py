"""What a run logs: shares of a step are summed over its micro-batches, means are averaged over them."""

import pytest

from edgerazor.schemas.recipe import load_recipe
from edgerazor.training import train
from tests.runs import recipe

pytestmark = pytest.mark.slow


def test_logged_figures_do_not_depend_on_accumulation(tmp_path, registry):
    """One epoch, whose last step has fewer micro-batches than the others."""
    logs = {}
    for size in (8, 2):
        training = {
            "max_steps": -1,
            "num_train_epochs": 1,
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": 8 // size,
            "logging_steps": 2,
            "save_strategy": "no",
            "dataloader_drop_last": False,
        }
        loaded = load_recipe(recipe(tmp_path, training=training), registry=registry)
        result = train(loaded, registry=registry, output=tmp_path / f"run{size}")
        logs[size] = [entry for entry in result.history if "task" in entry]
    assert len(logs[8]) == len(logs[2]) > 1
    for entry, other in zip(logs[8], logs[2], strict=True):
        assert entry.keys() == other.keys()
        shares = [name for name in entry if name in ("task", "eakld") or name.startswith("feature_mse")]
        assert {"feature_mse/layer_0", "feature_mse/layer_1", "feature_mse/chosen_0"} <= set(shares)
        assert [other[name] for name in shares] == pytest.approx([entry[name] for name in shares], rel=1e-3, abs=1e-7)
        assert other["feature_mse/layer_0"] == 0 < other["feature_mse/layer_1"]
        assert other["feature_mse/chosen_0"] == 0 and other["feature_mse/chosen_1"] == 1
        assert other["eakld/gamma"] == pytest.approx(entry["eakld/gamma"], abs=0.05)
