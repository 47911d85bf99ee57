"""Automatic precision: which matrix gets how many bits, from sensitivities measured on data, under a size target."""

from edgerazor.allocate.allocation import AllocationResult, AllocationSettings, allocate

__all__ = ["AllocationResult", "AllocationSettings", "allocate"]
