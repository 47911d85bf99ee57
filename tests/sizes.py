"""The smallest sizes with all parts of a decoder: two layers, heads in two groups, a width that groups divide."""

TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
