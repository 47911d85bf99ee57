"""Multiple choice about videos, for models that see: Video-MME and MLVU, read from a user's own files."""
