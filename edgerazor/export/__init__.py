"""Packed checkpoints to the formats of other engines, and back for verification."""
