"""SmolLM2-135M-Instruct at 4 and 2.79 bits: `make smollm2`, or `python examples/smollm2/run.py --help`."""

import argparse
import os
import sys
from pathlib import Path

from edgerazor.cli.process import ask_for_huge_pages, hide_progress_bars, keep_large_blocks
from edgerazor.errors import EdgeRazorError

HERE = Path(__file__).parent


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="smollm2", description=__doc__)
    parser.add_argument("--minutes", type=float, default=25.0, help="for everything, by the clock (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="of data order and training (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("smollm2"), help="folder of the run (default: smollm2)")
    parser.add_argument("--smoke", action="store_true", help="a few steps only, to see that everything works")
    parser.add_argument(
        "--data", type=Path, default=HERE / "dialogues.jsonl.gz", help="dialogues (default: those shipped)"
    )
    parser.add_argument("--model", type=Path, help="folder of another 16-bit model (default: the package's)")
    parser.add_argument(
        "--tasks", type=Path, action="append", default=[], metavar="FILE", help="multiple choice; repeatable"
    )
    found = parser.parse_args(arguments)
    if not found.minutes > 0:
        parser.error(f"--minutes is {found.minutes:g}; expected more than 0")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; 0, 2 if the input was at fault, 130 if interrupted."""
    found = parse(arguments)
    sys.path.insert(0, str(HERE))
    from smollm2_demo.demo import run
    from smollm2_demo.options import Options

    try:
        return run(Options(**{**vars(found), "tasks": tuple(found.tasks)}))
    except (EdgeRazorError, OSError) as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("smollm2: stopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    hide_progress_bars()
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of Transformers' reader of GGUF
    ask_for_huge_pages()
    keep_large_blocks()
    sys.exit(main())
