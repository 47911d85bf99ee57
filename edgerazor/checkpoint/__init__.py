"""The packed checkpoint: codes and scales at their true size, in a folder that transformers loads (TRANSFORMERS 5)."""

from edgerazor.checkpoint.hugging_face import EdgeRazorConfig, qat_config, register
from edgerazor.checkpoint.load import load_model
from edgerazor.checkpoint.pack import pack_model
from edgerazor.checkpoint.read import PackedCheckpoint, open_checkpoint
from edgerazor.checkpoint.storage import count_constant_groups, round_unquantized_, unquantized_dtype
from edgerazor.checkpoint.verify import VerifyResult, verify_checkpoint
from edgerazor.checkpoint.write import PackResult, write_checkpoint

__all__ = [
    "EdgeRazorConfig",
    "PackResult",
    "PackedCheckpoint",
    "VerifyResult",
    "count_constant_groups",
    "load_model",
    "open_checkpoint",
    "pack_model",
    "qat_config",
    "register",
    "round_unquantized_",
    "unquantized_dtype",
    "verify_checkpoint",
    "write_checkpoint",
]
