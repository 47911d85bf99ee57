"""The quickstart's figures, and what they say about the claims, whichever way it comes out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One model of the table.

    Attributes:
        name, kind, bits: as in `Variant`; the teacher has kind "teacher" and 16 bits, a file in another
            engine has kind "exported".
        bits_per_weight: of all quantized weights, scales included.
        bytes: of the files that hold tensors.
        loss: held-out cross entropy, nats per token.
        bits_per_byte: of the held-out text.
        kl_teacher, top1_agreement: against the 16-bit teacher.
        steps, tokens, seconds: of training; 0 where nothing was trained.
    """

    name: str
    kind: str
    bits: float
    bits_per_weight: float
    bytes: int
    loss: float
    bits_per_byte: float
    kl_teacher: float
    top1_agreement: float
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A statement about the table and whether this run's own numbers bear it out."""

    text: str
    holds: bool
    figures: str


@dataclass
class Results:
    """All rows, training curves and the setting of one run."""

    rows: list[Row] = field(default_factory=list)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def teacher(self) -> Row:
        return self.rows[0]

    def row(self, kind: str, bits: float) -> Row | None:
        """The row of that kind and nominal width, if it was run."""
        return next((row for row in self.rows if (row.kind, row.bits) == (kind, bits)), None)

    def gap(self, row: Row) -> float:
        """Held-out loss above the teacher's, nats per token."""
        return row.loss - self.teacher.loss

    def compression(self, row: Row) -> float:
        """Bytes of the 16-bit teacher over bytes of this model."""
        return self.teacher.bytes / row.bytes

    def claims(self) -> list[Claim]:
        """Every claim that the rows present can decide."""
        found: list[Claim] = []
        for row in self.rows:
            if row.kind == "distilled":
                found += _lower_loss(row, self.row("rounded", row.bits))
        found += _lower_loss(self.row("distilled", 1.88), self.row("rounded", 3))
        found += _lower_loss(self.row("distilled", 1.58), self.row("rounded", 2))
        distilled, alone = self.row("distilled", 1.58), self.row("cross_entropy", 1.58)
        if distilled and alone:
            text = "1.58 bit: distillation is closer to the teacher (KL) than cross entropy alone on as many tokens"
            figures = f"{distilled.kl_teacher:.4f} against {alone.kl_teacher:.4f}"
            found.append(Claim(text, distilled.kl_teacher < alone.kl_teacher, figures))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for results.json."""
        rows = [{**asdict(row), "gap": self.gap(row), "compression": self.compression(row)} for row in self.rows]
        claims = [asdict(claim) for claim in self.claims()]
        return {"rows": rows, "claims": claims, "samples": self.samples, "machine": self.machine, "curves": self.curves}


def _lower_loss(better: Row | None, worse: Row | None) -> Sequence[Claim]:
    if better is None or worse is None:
        return []
    figures = f"{better.loss:.4f} against {worse.loss:.4f} nats per token"
    return [Claim(f"{better.name} is better than {worse.name}", better.loss < worse.loss, figures)]
