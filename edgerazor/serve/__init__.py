"""Models behind the HTTP interface that clients of OpenAI's use (docs/guide/serve.md)."""
