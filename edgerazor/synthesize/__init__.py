"""Teacher-written training data: prompts, writers, and the file that grows."""
