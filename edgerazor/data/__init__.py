"""From files to rows: reading, mixing, tokenizing, packing, batches (METHOD 7)."""

from edgerazor.data.collate import Collator
from edgerazor.data.load import Data, load_data

__all__ = ["Collator", "Data", "load_data"]
