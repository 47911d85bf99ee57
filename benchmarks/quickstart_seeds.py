"""Does the quickstart's table depend on the seed? Runs it over several, prints means and spreads, writes one JSON.

python benchmarks/quickstart_seeds.py --seeds 0 1 2 --output benchmarks/results/quickstart_seeds.json
"""

import argparse
import json
import statistics
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgerazor.core.discovery import load_plugins
from edgerazor.quickstart.results import Results
from edgerazor.quickstart.runner import DEFAULT_BUDGET, run_quickstart

FIGURES = ("loss", "gap", "bits_per_byte", "kl_teacher", "top1_agreement", "steps")


def summarise(runs: list[Results]) -> list[dict[str, object]]:
    """One entry per model: bits, bytes, and mean and sample standard deviation of every figure over the runs."""
    tables = [run.to_dict()["rows"] for run in runs]
    summary = []
    for rows in zip(*tables, strict=True):
        entry: dict[str, object] = {key: rows[0][key] for key in ("name", "bits_per_weight", "bytes", "compression")}
        for figure in FIGURES:
            values = [row[figure] for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            entry[figure] = {"mean": statistics.fmean(values), "spread": spread}
        summary.append(entry)
    return summary


def claims_held(runs: list[Results]) -> dict[str, int]:
    """How many runs bear each claim out."""
    counts: dict[str, int] = {}
    for run in runs:
        for claim in run.claims():
            counts[claim.text] = counts.get(claim.text, 0) + claim.holds
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=DEFAULT_BUDGET)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "quickstart_seeds.json")
    arguments = parser.parse_args()
    run = partial(run_quickstart, registry=load_plugins(), budget=arguments.budget, smoke=arguments.smoke)
    runs = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run(folder, seed=seed))
    summary, claims = summarise(runs), claims_held(runs)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": [run.machine for run in runs], "models": summary, "claims": claims, "runs": len(runs)}
    arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _print(summary, claims, len(runs))


def _print(summary: list[dict[str, object]], claims: dict[str, int], runs: int) -> None:
    table = Table("model", *FIGURES, title=f"mean ± standard deviation over {runs} seeds")
    for entry in summary:
        cells = [f"{entry[key]['mean']:.4f} ± {entry[key]['spread']:.4f}" for key in FIGURES]  # type: ignore[index]
        table.add_row(str(entry["name"]), *cells)
    console = Console(width=160)
    console.print(table)
    for text, held in claims.items():
        console.print(f"{held} of {runs}: {text}", highlight=False)


if __name__ == "__main__":
    main()
