"""Contracts and the machinery between them. Imports no plugin and no adapter; both come through the registry."""
