"""The main job end to end on text every user already has: teacher, low-bit students, baselines, report."""

from edgerazor.quickstart.runner import run_quickstart

__all__ = ["run_quickstart"]
