"""FSDP2 on CPUs: accelerate takes the setting there, but trains with DDP without a word; this makes it shard."""

import os
from typing import Any

from accelerate import DistributedType
from accelerate.utils import FullyShardedDataParallelPlugin


def shard_on_cpu(accelerator: Any, plugin_arguments: dict[str, Any] | None) -> bool:
    """Switch a multi-process CPU run that asks for FSDP to FSDP2, before a model is prepared.

    Args:
        accelerator: an `accelerate.Accelerator`.
        plugin_arguments: `TrainingArguments.fsdp_plugin_args`; None where the launcher's environment decides.

    Returns:
        Whether FSDP2 was switched on.
    """
    asked = plugin_arguments is not None or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not asked or accelerator.state.distributed_type != DistributedType.MULTI_CPU:
        return False
    plugin = FullyShardedDataParallelPlugin(**(plugin_arguments or {}))
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    return True
