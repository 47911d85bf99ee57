"""What is used of lm-evaluation-harness, where it is installed."""

from pathlib import Path

from edgerazor.errors import PluginError, install_hint

try:
    import lm_eval
    from lm_eval.api.group import Group
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.config.group import AggMetricConfig
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks._yaml_loader import load_yaml
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError as error:
    if error.name != "lm_eval":
        raise
    raise PluginError(f"lm-evaluation-harness is not installed: {install_hint('eval')}") from error

FOLDER = Path(lm_eval.__file__).parent / "tasks"

__all__ = [
    "FOLDER",
    "AggMetricConfig",
    "ConfigurableTask",
    "Group",
    "TemplateLM",
    "evaluate",
    "get_rolling_token_windows",
    "load_yaml",
    "make_disjoint_window",
]
