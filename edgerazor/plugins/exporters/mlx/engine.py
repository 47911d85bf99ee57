"""mlx_lm, imported without a trace in the process, and what its model classes expect of a folder."""

import importlib
import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgerazor.errors import ExportError, first_line, install_hint

_ADVICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"


@contextmanager
def _unchanged_process() -> Iterator[None]:
    """mlx_lm sets a variable and the number of open files when it is imported, for its own commands."""
    advice, (soft, _) = os.environ.get(_ADVICE), resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        os.environ.pop(_ADVICE, None)
        if advice is not None:
            os.environ[_ADVICE] = advice
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))


try:
    with _unchanged_process():
        import mlx.core
        import mlx_lm
        from mlx.utils import tree_flatten
        from mlx_lm.models.cache import make_prompt_cache
        from mlx_lm.utils import MODEL_REMAPPING, load_model
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] not in ("mlx", "mlx_lm"):
        raise
    raise ImportError(f"the package {error.name} is not installed: {install_hint('mlx')}") from error

mx: Any = mlx.core  # what it says of its types and what it has differ
ENGINE = f"mlx_lm {mlx_lm.__version__} (MLX {mx.__version__})"
__all__ = ["ENGINE", "expected_shapes", "load_model", "make_prompt_cache", "mx", "without_compiler"]


def expected_shapes(config: Mapping[str, Any], names: Iterable[str]) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Shape of every parameter of the model that mlx_lm makes of a configuration, and the names that it reads.

    Nothing is computed: arrays of MLX are made when they are first used.

    Args:
        config: content of config.json.
        names: of the tensors in the folder, as if none were quantized.

    Raises:
        ExportError: mlx_lm refuses the configuration.
    """
    try:
        name = MODEL_REMAPPING.get(config["model_type"], config["model_type"])
        module = importlib.import_module(f"mlx_lm.models.{name}")
        model = module.Model(module.ModelArgs.from_dict(dict(config)))
        weights = dict.fromkeys(names)
        read = set(model.sanitize(weights)) if hasattr(model, "sanitize") else set(weights)
        return {name: tuple(array.shape) for name, array in tree_flatten(model.parameters())}, read
    except Exception as error:  # whatever a class stumbles over
        raise ExportError(f"config.json: mlx_lm makes no model of it: {first_line(error)}") from error


@contextmanager
def without_compiler() -> Iterator[None]:
    """Each operation computed on its own: nothing is compiled on a processor.

    MLX would start the C++ compiler of the machine, a second for each operation, and load what it made from a folder in
    /tmp that others can write to; and what it computes would depend on whether there is a compiler.

    The switch of a person, MLX_DISABLE_COMPILE, is left as it is, and so is Metal, which needs no compiler.
    """
    if os.environ.get("MLX_DISABLE_COMPILE") is not None or mx.default_device() == mx.gpu:
        yield
        return
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()
