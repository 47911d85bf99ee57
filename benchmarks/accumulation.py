"""One optimizer step of several micro-batches with gradient checkpointing: 4 on a CPU, 16 on CUDA.

Without a cache each weight is quantized twice per micro-batch, forward and recomputed. Contestants and gates are those
of training_step.py.

python benchmarks/accumulation.py [--quick] [--device cuda]
"""

from collections.abc import Sequence
from pathlib import Path

import training_step


def main(arguments: Sequence[str] | None = None) -> None:
    training_step.main(
        arguments,
        name="accumulation",
        script=Path(__file__),
        description=__doc__,
        rounds=3,
        micro_batches=lambda device: 16 if device == "cuda" else 4,
    )


if __name__ == "__main__":
    main()
