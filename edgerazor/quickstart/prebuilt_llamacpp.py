"""Text from a GGUF file in a llama.cpp that comes compiled, for machines without a compiler.

The package xllamacpp answers prompts. It gives no logits and no vocabulary, so nothing can be measured or proved with
it: that takes llama-cpp-python, which is built from source.
"""

from pathlib import Path

from edgerazor.errors import ExportError


def write_text(path: Path, prompt: str, tokens: int) -> tuple[str, str] | None:
    """Name of the engine, and the likeliest tokens after a prompt as text; None if xllamacpp is not installed.

    Raises:
        ExportError: it cannot load the file.
    """
    try:
        import xllamacpp
    except ImportError:
        return None
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(path), 512, 1
    params.verbosity, params.warmup = -1, False
    try:
        server = xllamacpp.Server(params)
        answer = server.handle_completions({"prompt": prompt, "n_predict": tokens, "temperature": 0.0})
        return f"llama.cpp (xllamacpp {xllamacpp.__version__})", str(answer["choices"][0]["text"])
    except (RuntimeError, KeyError) as error:
        raise ExportError(f"{path}: xllamacpp cannot run it: {error}") from error
