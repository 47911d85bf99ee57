"""What the processor can do, as far as torch tells."""

import torch


def has_instructions(*names: str) -> bool | None:
    """Whether it has any of these, named as in `torch.cpu.get_capabilities`; None if torch is too old to tell."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return None
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in names)
