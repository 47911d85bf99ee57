"""Layer selectors."""
