"""Models from disk or the hub: configuration, weights, tokenizer, and what student and teacher share."""
