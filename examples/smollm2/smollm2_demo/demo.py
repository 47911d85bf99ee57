"""The demonstration, stage by stage: teacher, rounding, plan, training, exports, figures, report."""

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from edgerazor import load_plugins
from edgerazor.core.registry import Registry
from edgerazor.errors import TrainingError
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.kernels.processor import processor_name
from smollm2_demo import budget
from smollm2_demo.engines import Engines
from smollm2_demo.options import Options
from smollm2_demo.report import write_report
from smollm2_demo.stages import Stages
from smollm2_demo.students import Students
from smollm2_demo.tasks import read_items
from smollm2_demo.teacher import compare_tokens, convert, find_gguf


def run(options: Options, *, console: Console | None = None, registry: Registry | None = None) -> int:
    """Do what is not done yet in the folder of the run, and write its report.

    Raises:
        EdgeRazorError: a stage could not do its work.
        KeyboardInterrupt: it was stopped; the next call goes on from there.
    """
    Demo(options, console or Console(), registry or load_plugins()).run()
    return 0


class Demo:
    """One run."""

    def __init__(self, options: Options, console: Console, registry: Registry):
        self.started, self.options, self.console, self.registry = time.monotonic(), options, console, registry
        self.stages = Stages(options.output, options.deciding(), self.say)
        self.earlier = sum(self.stages.seconds.values())
        teacher = options.model or options.output / "teacher"
        self.students = Students(options, teacher, registry, console)
        self.engines = Engines(options, teacher, registry)

    def run(self) -> None:
        """Every stage that is not finished, then the report."""
        for task in self.options.tasks:
            read_items(task, self.options.sizes.task_items)
        self.options.output.mkdir(parents=True, exist_ok=True)
        results: dict[str, Any] = {"teacher": self.stages("teacher", self._teacher)}
        models = self._round_and_measure()
        results["plan"] = self._plan()
        results["models"] = {**models, **self._train_and_measure(results["plan"])}
        results["exports"] = self._each("exporting {}", self.engines.export)
        results["speeds"] = {
            "teacher": self.stages("speed of the teacher", self.engines.teacher_speed),
            **self._each("speed of {}", self.engines.speeds),
        }
        results["same_tokens"] = self._each("greedy tokens of {} in every engine", self.engines.same_tokens)
        results["tasks"] = self._tasks()
        results["answers"] = {
            "teacher": self.stages("answers of the teacher", lambda: self.engines.ask(None)),
            **self._each("answers of {}", self.engines.ask),
        }
        results["machine"] = self._machine()
        write_report(results, self.options.output, self.console)

    def say(self, text: str) -> None:
        """A line of progress, after how many seconds."""
        self.console.print(
            f"[{time.monotonic() - self.started:5.0f} s] {text}", highlight=False, markup=False, soft_wrap=True
        )

    def _teacher(self) -> Mapping[str, Any]:
        if self.options.model is not None:
            return {"origin": str(self.options.model), "texts": None}
        gguf = find_gguf()
        convert(gguf, self.students.teacher)
        if not self.engines.has_llama_cpp:
            self.say("llama.cpp is not installed: tokens are not compared with its own, and GGUF files are not run")
            return {"origin": gguf.stem, "texts": None}
        runtime = open_runtime(gguf, registry=self.registry)
        try:
            compared = compare_tokens(runtime, self.students.teacher)
        finally:
            runtime.close()
        return {"origin": gguf.stem, "texts": compared}

    def _plan(self) -> Mapping[str, Any]:
        probes = {
            student.name: self.stages(f"timing steps of {student.name}", lambda s=student: self.students.time_steps(s))
            for student in self.options.students
        }

        def divide() -> Mapping[str, Any]:
            if (steps := self.options.sizes.steps) is not None:
                return budget.fixed(steps, probes)
            return budget.divide(
                self.options.minutes, self.earlier + time.monotonic() - self.started, probes, self.options.students
            )

        minutes = None if self.options.smoke else self.options.minutes
        plan = self.stages("plan", lambda: {"minutes": minutes, "students": divide()})
        if plan["minutes"] != minutes:
            raise TrainingError(
                f"{self.options.output}: was planned for --minutes {plan['minutes']:g}; give these to go on with it, "
                "or another --output"
            )
        budget.show(plan["students"], minutes, self.console)
        return plan["students"]

    def _round_and_measure(self) -> dict[str, Any]:
        measured = {"teacher": self.stages("held-out figures of the teacher", self.students.teacher_figures)}
        for kind, work in (("rounded", self.students.round), ("calibrated", self.students.calibrate)):
            for student in self.options.students:
                name = f"{student.name} {kind}"
                measured[name] = self.stages(name, lambda s=student, w=work: w(s))
        return measured

    def _train_and_measure(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        measured = {}
        for student in self.options.students:
            name = f"{student.name} distilled"
            measured[name] = self.stages(name, lambda s=student: self.students.train(s, plan[s.name]))
        return measured

    def _each(self, stage: str, work: Any) -> dict[str, Any]:
        """One stage for every student."""
        return {
            student.name: self.stages(stage.format(student.name), lambda s=student: work(s.name))
            for student in self.options.students
        }

    def _contestants(self) -> dict[str, Path | None]:
        """Packed checkpoints by their names in the report; None is the teacher."""
        found: dict[str, Path | None] = {"teacher": None}
        for student in self.options.students:
            for kind in ("rounded", "calibrated"):
                found[f"{student.name} {kind}"] = self.engines.folder(student.name) / kind
            found[f"{student.name} distilled"] = self.engines.packed(student.name)
        return found

    def _tasks(self) -> dict[str, Any]:
        if not self.options.tasks:
            self.say("no public tasks: give files of multiple choice with --tasks")
        return {
            task.name: {
                name: self.stages(f"{task}: {name}", lambda path=path, task=task: self.engines.task(path, task))
                for name, path in self._contestants().items()
            }
            for task in self.options.tasks
        }

    def _machine(self) -> Mapping[str, Any]:
        seconds = self.stages.seconds
        return {
            "processor": processor_name(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "seed": self.options.seed,
            "minutes": None if self.options.smoke else self.options.minutes,
            "data": self.options.data.name,
            "seconds": round(sum(seconds.values()), 1),
            "stages": seconds,
        }
