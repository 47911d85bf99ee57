"""What a run is asked for, and how much of everything it measures."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgerazor.errors import CheckpointError, DataError

HERE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Student:
    """One width.

    Attributes:
        name: as in the report, and of its folder.
        recipe: the file that it is trained by.
        share: of the training time; the further rounding is from the teacher, the more.
    """

    name: str
    recipe: Path
    share: float


STUDENTS = (Student("4-bit", HERE / "4-bit.yaml", 0.25), Student("2.79-bit", HERE / "2.79-bit.yaml", 0.75))


@dataclass(frozen=True)
class Sizes:
    """How much is trained and measured.

    Attributes:
        changes: of the recipes, as `--set` takes them.
        steps: of training; None is what the time allows.
        calibration_rows: of the dialogues, for calibrated rounding of a student whose training does not begin there.
        probe_steps: that are timed for the plan, after one that is not.
        questions, answer_tokens: how many are asked, and how long an answer may be.
        greedy_prompts, greedy_tokens: how many texts the engines write, and how long these are.
        speed_tokens: timed one by one.
        task_items: of each public task.
    """

    changes: tuple[str, ...] = ()
    steps: int | None = None
    calibration_rows: int = 16
    probe_steps: int = 2
    questions: int = 6
    answer_tokens: int = 64
    greedy_prompts: int = 2
    greedy_tokens: int = 64
    speed_tokens: int = 32
    task_items: int = 100


SMOKE = Sizes(
    changes=("data.sequence_length=128", "evaluation.batches=2", "training.start_samples=4"),
    steps=4,
    calibration_rows=4,
    probe_steps=1,
    questions=2,
    answer_tokens=12,
    greedy_prompts=1,
    greedy_tokens=12,
    speed_tokens=6,
    task_items=4,
)


@dataclass(frozen=True)
class Options:
    """The command line.

    Attributes:
        output: folder of the run.
        data: dialogues, a part of which is held out.
        model: a folder with another 16-bit model; None is the one in the package.
        minutes: for everything.
        seed: of data order and training.
        smoke: a few steps only.
        tasks: files of multiple choice.
        students: widths that are trained.
    """

    output: Path
    data: Path
    model: Path | None = None
    minutes: float = 25.0
    seed: int = 0
    smoke: bool = False
    tasks: tuple[Path, ...] = ()
    students: tuple[Student, ...] = STUDENTS

    @property
    def sizes(self) -> Sizes:
        return SMOKE if self.smoke else Sizes()

    def deciding(self) -> dict[str, Any]:
        """What decides the students: a folder with another one of these is another run.

        Raises:
            CheckpointError: there is no model in the folder named.
            DataError: there is no file of dialogues.
        """
        if self.model is not None and not (self.model / "config.json").is_file():
            raise CheckpointError(
                f"{self.model}: holds no config.json; expected the folder of a 16-bit model (--model)"
            )
        if not self.data.is_file():
            raise DataError(f"{self.data}: there is no such file; expected dialogues as JSON lines (--data)")
        return {
            "model": str(self.model) if self.model else None,
            "data": sha256(self.data.read_bytes()).hexdigest()[:16],
            "seed": self.seed,
            "smoke": self.smoke,
        }
