"""Built-in exporters. Their declarations are in `params`; their code is imported when one is built."""
