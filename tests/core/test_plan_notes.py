"""A plan names the modules that it never quantizes."""

from collections.abc import Callable
from typing import Any

from torch import nn

from edgerazor.core.plan import Plan


def test_convolutions_and_multihead_attention_are_named(
    build_model: Callable[..., nn.Module], plan_model: Callable[..., Plan]
) -> None:
    model: Any = build_model()
    model.patches = nn.Conv2d(3, 8, 4)
    model.sound = nn.Conv1d(4, 8, 3)
    model.mixer = nn.MultiheadAttention(16, 2)
    plan = plan_model(model)
    said = {note.partition(" [")[0]: note for note in plan.notes}
    assert "Conv2d: convolutions are not quantized; stays at 16 bit" in said["patches"]
    assert "Conv1d: convolutions are not quantized" in said["sound"]
    for name in ("mixer.in_proj_weight", "mixer.out_proj"):
        assert "nn.MultiheadAttention is not quantized" in said[name]
    assert set(plan.matrices_left_out) == {
        "patches.weight",
        "sound.weight",
        "mixer.in_proj_weight",
        "mixer.out_proj.weight",
    }
    assert not {module.name for module in plan.modules} & {"patches", "sound", "mixer", "mixer.out_proj"}
