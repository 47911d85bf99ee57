"""What a processor has instructions for: read from the machine in one place, handed on to what chooses by it.

The environment variable EDGERAZOR_PROCESSOR stands in for the machine, for a whole process: `none`, or some of `vnni`,
`bfloat16` and `float16` joined by `+`. Whatever it says, only the way to a result changes: every way is right on every
processor, but those that it has no instructions for are slow.
"""

import os
import platform
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import torch

from edgerazor.errors import EdgeRazorError

SETTING = "EDGERAZOR_PROCESSOR"


@dataclass(frozen=True)
class Processor:
    """What matrix products on a CPU may count on.

    Attributes:
        vnni: instructions that multiply bytes and sum them as integers (VNNI, AMX), and oneDNN, which uses them.
        bfloat16, float16: instructions that multiply numbers of that type.
    """

    vnni: bool = False
    bfloat16: bool = False
    float16: bool = False

    @classmethod
    def named(cls, value: str) -> "Processor":
        """The processor that a value of EDGERAZOR_PROCESSOR describes.

        Raises:
            EdgeRazorError: it is neither `none` nor made of the names of the attributes.
        """
        known = [field.name for field in fields(cls)]
        names = [] if value == "none" else value.split("+")
        if unknown := [name for name in names if name not in known]:
            raise EdgeRazorError(
                f"{SETTING}={value}: '{unknown[0]}' is nothing that a processor can have; expected none, or some of "
                f"{', '.join(known)} joined by +, such as vnni+bfloat16"
            )
        return cls(**dict.fromkeys(names, True))


# As `torch.cpu.get_capabilities` names them: of x86, then of ARM.
_INSTRUCTIONS = {
    "vnni": ("avx512_vnni", "avx_vnni", "amx_int8"),
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "fp16_arith"),
}


def this_processor() -> Processor:
    """What this process is to take its processor for: the setting, or else what torch tells of the machine.

    Raises:
        EdgeRazorError: the setting has no such value.
    """
    value = os.environ.get(SETTING)
    if value is not None:
        return Processor.named(value)
    return _of_this_machine(onednn=torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled))


@cache
def _of_this_machine(*, onednn: bool) -> Processor:
    if not hasattr(torch.cpu, "get_capabilities"):
        # This torch is too old to tell: multiply as torch itself would, values in their own type.
        return Processor(vnni=False, bfloat16=True, float16=True)
    capabilities = torch.cpu.get_capabilities()
    has = {
        what: any(capabilities.get(instruction) for instruction in instructions)
        for what, instructions in _INSTRUCTIONS.items()
    }
    return Processor(**{**has, "vnni": has["vnni"] and onednn})


def processor_name() -> str:
    """The model of the processor of this machine and the number of its cores, for people to read beside figures."""
    cores = f"{os.cpu_count()} cores"
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {cores}"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()}, {cores}"
