"""One training step: teacher, student, and the losses between them."""

from edgerazor.distill.distiller import Distiller

__all__ = ["Distiller"]
