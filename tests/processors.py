"""Processors that tests pretend to run on; results must be right on all of them, whatever the machine really is."""

from edgerazor.kernels.processor import Processor

PROCESSORS = [
    Processor(),
    Processor(vnni=True),
    Processor(bfloat16=True, float16=True),
    Processor(vnni=True, bfloat16=True, float16=True),
]


def name(processor: Processor) -> str:
    """For the id of a test."""
    return "+".join(key for key, has in vars(processor).items() if has) or "none"
