"""The version, below everything that writes it into a file or a message."""

__version__ = "2.0.0"
