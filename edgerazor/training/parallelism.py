"""Ways of using several processes that a run refuses, because they would fail late, or be wrong without a word."""

import os
from collections.abc import Iterator, Mapping

from edgerazor.errors import TrainingError
from edgerazor.schemas.training import TrainingSection

_INSTEAD = (
    "train with DDP, which `torchrun` and `accelerate launch` start, or with FSDP2 (fsdp_version: 2), which divides "
    "weights, gradients and optimizer among the processes"
)
_DEEPSPEED = "DeepSpeed unpickles its checkpoints to resume, and its stage 3 empties weights before they are quantized"
_MEGATRON = "Megatron-LM trains models of its own, in which nothing would be quantized"
_PARTS = "the losses count the positions of whole sequences and whole layers, which this divides among the processes"
_SIZES = {
    "PARALLELISM_CONFIG_TP_SIZE": "tensor parallelism",
    "PARALLELISM_CONFIG_CP_SIZE": "context parallelism",
    "PARALLELISM_CONFIG_SP_SIZE": "sequence parallelism",
}


def check_parallelism(training: TrainingSection, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse DeepSpeed, Megatron-LM and parallelism within a sequence or a layer, before anything is loaded.

    Args:
        environment: in which launchers say how they started this process.

    Raises:
        TrainingError: with one line for each, the reason, and what to take instead.
    """
    problems = [f"{where}: is not supported: {why}; {_INSTEAD}" for where, why in _refused(training, environment)]
    if problems:
        raise TrainingError("\n".join(problems))


def check_sharding(plugin_arguments: Mapping[str, object] | None, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse version 1 of FSDP, which flattens the matrices that quantizers see.

    Args:
        plugin_arguments: `TrainingArguments.fsdp_plugin_args`; None where the launcher's environment decides.

    Raises:
        TrainingError: it is asked for.
    """
    asked = environment.get("FSDP_VERSION", "1") if _is_on(environment, "ACCELERATE_USE_FSDP") else "2"
    version = asked if plugin_arguments is None else str(plugin_arguments.get("fsdp_version", "1"))
    if version != "2":
        raise TrainingError(
            f"FSDP version {version}: is not supported: it flattens the matrices that quantizers see; set "
            "fsdp_version: 2 in the accelerate configuration, or version: 2 in training.fsdp_config"
        )


def _refused(training: TrainingSection, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Where each way that is refused is asked for, and why it is."""
    if training.deepspeed is not None:
        yield "training.deepspeed", _DEEPSPEED
    if training.extra.get("parallelism_config") is not None:
        yield "training.extra.parallelism_config", _PARTS
    if _is_on(environment, "ACCELERATE_USE_DEEPSPEED"):
        yield "DeepSpeed, by the launcher's ACCELERATE_USE_DEEPSPEED", _DEEPSPEED
    if _is_on(environment, "ACCELERATE_USE_MEGATRON_LM"):
        yield "Megatron-LM, by the launcher's ACCELERATE_USE_MEGATRON_LM", _MEGATRON
    for variable, what in _SIZES.items() if _is_on(environment, "ACCELERATE_USE_PARALLELISM_CONFIG") else ():
        if environment.get(variable, "1") != "1":
            yield f"{what}, by the launcher's {variable}={environment[variable]}", _PARTS


def _is_on(environment: Mapping[str, str], variable: str) -> bool:
    return environment.get(variable, "").lower() in ("1", "true", "t", "yes", "y", "on")
