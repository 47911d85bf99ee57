"""lm-evaluation-harness's own tasks on rows made up for tests; `make tasks` installs it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from edgerazor.evaluate.tasks.harness import SEED

FILES = {
    **{name: f"arc/{name}" for name in ("arc_easy", "arc_challenge")},
    **{name: f"{name}/{name}" for name in ("openbookqa", "piqa", "hellaswag", "gsm8k", "ifeval", "humaneval")},
    **{"social_iqa": "siqa/siqa", "winogrande": "winogrande/default", "boolq": "super_glue/boolq/default"},
    **{"blimp": "blimp/adjunct_island", "ethics_cm": "hendrycks_ethics/commonsense"},
    **{f"ethics_{name}": f"hendrycks_ethics/{name}" for name in ("deontology", "justice", "utilitarianism", "virtue")},
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2",
    "mmlu": "mmlu/default/mmlu_abstract_algebra",
    "humaneval_instruct": "humaneval/humaneval_instruct",
}


class TaskOfTheHarness(ConfigurableTask):
    """A task by the harness's own file, on rows as the hub has them."""

    def __init__(self, name: str, rows: Sequence[Mapping[str, Any]], shots: Sequence[Mapping[str, Any]] = ()):
        self._rows, self._shots = (Dataset.from_list([dict(row) for row in some]) for some in (rows, shots or rows))
        super().__init__(
            config=load_yaml(Path(lm_eval.__file__).parent / "tasks" / f"{FILES[name]}.yaml", resolve_func=True)
        )
        self.set_config("num_fewshot", self.config.num_fewshot or 0)
        self.set_fewshot_seed(SEED)

    def download(self, *_: Any, **__: Any) -> None:
        evaluated = self.config.test_split or self.config.validation_split
        self.dataset = dict.fromkeys(("train", "dev", "validation", "test"), self._shots) | {evaluated: self._rows}
