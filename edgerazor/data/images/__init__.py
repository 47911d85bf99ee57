"""Pictures and their classes: from folders and tables to batches."""

from edgerazor.data.images.batches import ImageCollator
from edgerazor.data.images.load import Classes, load_images
from edgerazor.data.images.rows import ImageRows

__all__ = ["Classes", "ImageCollator", "ImageRows", "load_images"]
