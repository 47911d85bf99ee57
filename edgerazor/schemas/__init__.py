"""The recipe: pydantic models only. Reading and checking a recipe imports no torch."""
