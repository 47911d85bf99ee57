"""From files to rows: reading, mixing, tokenizing, packing, batches (METHOD 7)."""

from edgerazor.pipeline.data.collate import Collator
from edgerazor.pipeline.data.load import Data, load_data

__all__ = ["Collator", "Data", "load_data"]
