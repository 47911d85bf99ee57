"""Whether two models differ on the same items: McNemar's exact test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CHANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two models on the items of one task.

    Attributes:
        student_only: items that the student alone answers rightly.
        teacher_only: items that the teacher alone answers rightly.
        p: probability of so uneven a split or a more uneven one, if both are equally good.
    """

    student_only: int
    teacher_only: int
    p: float

    @property
    def verdict(self) -> str:
        """Who is better, or that the difference may be chance, at a level of 5 %."""
        if self.p >= CHANCE:
            return "may be chance"
        return "teacher better" if self.teacher_only > self.student_only else "student better"


def compare_answers(student: Sequence[bool], teacher: Sequence[bool]) -> Comparison:
    """Compare right and wrong answers to the same items, in the same order."""
    pairs = list(zip(student, teacher, strict=True))
    ours, theirs = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    return Comparison(ours, theirs, mcnemar(ours, theirs))


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided p of McNemar's exact test: disagreements fall on either side with probability 1/2.

    Source: McNemar, Psychometrika 12 (1947); the exact form is the binomial test.
    """
    count = first_only + second_only
    tail = sum(math.comb(count, index) for index in range(min(first_only, second_only) + 1))
    return min(1.0, 2 * tail / 2**count)
