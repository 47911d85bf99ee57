"""How fast do engines run the same student? Tokens per second, memory, and the share of the machine's bandwidth.

python benchmarks/decode.py --work FOLDER                        (weights are random, SmolLM2-135M by shape)
python benchmarks/decode.py --work FOLDER --shape qwen3-0.6b     (7 GB of disk)
python benchmarks/decode.py --work FOLDER --model smollm2        (what `make smollm2` left)

Engines that need an environment of their own: `--python openvino=.venv-openvino/bin/python`, once for each.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contest import publish
from decode_contest import Contest, Contestant, quartiles
from decode_files import DENSE, PACKED
from random_models import SHAPES, SPARE_TOKENS, SPECIAL_TOKENS, packed_model
from rich.console import Console

# Engine: worker, and what it says to the worker about itself.
ENGINES = {
    "llama-cpp-python": ("decode_llamacpp_python", ""),
    "xllamacpp": ("decode_xllamacpp", ""),
    "ik_llama.cpp": ("decode_ik_llamacpp", ""),
    "onnxruntime": ("decode_onnx", "onnxruntime"),
    "onnxruntime-genai": ("decode_onnx", "genai"),
    "openvino": ("decode_openvino", ""),
    "transformers": ("decode_torch", "bf16"),
    "edgerazor": ("decode_torch", "packed"),
    "vllm": ("decode_vllm", ""),
}
# The same student in 16 bits, then in what each engine takes of its width.
DENSE_ROWS = [("llama-cpp-python", DENSE), ("openvino", DENSE), ("transformers", PACKED)]
WIDTH_ROWS = [
    ("llama-cpp-python", "gguf"),
    ("llama-cpp-python", "gguf-4bit"),
    ("xllamacpp", "gguf"),
    ("xllamacpp", "gguf-4bit"),
    ("ik_llama.cpp", "gguf"),
    ("ik_llama.cpp", "gguf-4bit"),
    ("onnxruntime", "onnx"),
    ("onnxruntime", "onnx-4bit"),
    ("onnxruntime-genai", "onnx"),
    ("openvino", "gguf-4bit"),
    ("edgerazor", PACKED),
    ("vllm", "compressed-tensors"),
]
FOUR_BITS = ("gguf-4bit", "onnx-4bit")
TEXT = (
    "The river rises in the mountains in the north of the country and flows through three large towns before it "
    "reaches the sea. In spring, when the snow melts, its water covers the meadows on both banks, and people who live "
    "there have built their houses on low hills. A bridge of stone, which was finished in the year"
)
COLUMNS = {
    "width": "student",
    "engine": "engine",
    "format": "format",
    "mb": "MB",
    "prompt": "prompt tok/s",
    "decode": "decode tok/s",
    "quartiles": "quartiles",
    "ratio": "× F16",
    "memory": "memory, MiB",
    "moved": "MB per token",
    "of_copy": "% of copy",
    "of_f16": "% of F16's bandwidth",
    "gate": "greedy tokens",
}


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("benchmark-models"), help="where files are made and kept")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m", help="of random weights")
    parser.add_argument("--model", type=Path, help="folder with WIDTH/run/packed for each of --presets")
    parser.add_argument("--presets", nargs="+", default=["1.58-bit", "4-bit"], metavar="WIDTH")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH", help="interpreter of a peer")
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--new", type=int, default=96, help="tokens")
    parser.add_argument("--megabytes", type=int, default=256, help="that a thread copies for the bandwidth")
    parser.add_argument("--in-process", action="store_true", help="for tests: no fresh process for each measurement")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "decode.json")
    arguments = parser.parse_args(given)
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: expected 1 or more")
    pythons = dict.fromkeys(ENGINES, sys.executable)
    for setting in arguments.python:
        name, equals, path = setting.partition("=")
        if name not in ENGINES or not equals:
            parser.error(f"--python {setting}: expected ENGINE=PATH, ENGINE one of {', '.join(ENGINES)}")
        pythons[name] = path
    arguments.python = pythons
    return arguments


def packed_checkpoints(arguments: argparse.Namespace) -> dict[str, Path]:
    """Packed checkpoints by width."""
    if arguments.model is None:
        root = arguments.work / arguments.shape
        return {width: packed_model(root, width, arguments.shape) for width in arguments.presets}
    found = {width: arguments.model / width / "run" / "packed" for width in arguments.presets}
    for path in found.values():
        if not path.is_dir():
            raise SystemExit(f"{path}: there is no such folder; what `make smollm2` writes was expected")
    return found


def prompt_ids(arguments: argparse.Namespace, packed: Path) -> list[int]:
    """Of random tokens for random weights, else of a text."""
    if arguments.model is None:
        words = SHAPES[arguments.shape]["vocab_size"] - SPARE_TOKENS - SPECIAL_TOKENS
        return np.random.default_rng(0).integers(0, words, arguments.prompt).tolist()
    from edgerazor.models.tokenizer import load_tokenizer

    return list(load_tokenizer(packed)(TEXT)["input_ids"])[: arguments.prompt]


def contestants(arguments: argparse.Namespace) -> list[Contestant]:
    """In the order of the table."""
    widths = arguments.presets
    rows = [(widths[0], engine, form, "16 bit") for engine, form in DENSE_ROWS]
    for width in widths:
        # A 4-bit student has one file where a ternary one has two.
        forms = [(engine, form) for engine, form in WIDTH_ROWS if width.startswith("1.58") or not _spare(engine, form)]
        rows += [(width, engine, form, width) for engine, form in forms]
    return [Contestant(*row, *ENGINES[row[1]], arguments.python[row[1]]) for row in rows if row[1] in arguments.only]


def _spare(engine: str, form: str) -> bool:
    return form in FOUR_BITS and any(other == engine and form not in FOUR_BITS for other, form in WIDTH_ROWS)


def table(contest: Contest, bandwidth: float) -> list[dict[str, Any]]:
    """One row per contestant; what is missing says why in the column of the gate."""
    usual = contest.rounds.get(("16 bit", "llama-cpp-python", DENSE), [])
    f16 = quartiles(usual, "decode")[1] if usual else None
    f16_moved = contest.moved.get(("16 bit", "llama-cpp-python", DENSE))
    rows = []
    for player in contest.players:
        row: dict[str, Any] = {"width": player.label, "engine": player.engine, "format": player.form}
        row |= {"mb": contest.sizes.get(player.key), "gate": contest.gates.get(player.key)}
        if measured := contest.rounds.get(player.key):
            low, middle, high = quartiles(measured, "decode")
            row |= {name: quartiles(measured, name)[1] for name in ("prompt", "memory")}
            row |= {"version": measured[0]["version"], "decode": middle, "quartiles": f"{low:.1f}–{high:.1f}"}
            row["ratio"] = middle / f16 if f16 else None
            if moved := contest.moved.get(player.key):
                row |= {"moved": moved / 1e6, "of_copy": 100 * moved * middle / bandwidth}
                row["of_f16"] = 100 * moved * middle / (f16_moved * f16) if f16 and f16_moved else None
        rows.append(row)
    return rows


def main(given: Sequence[str] | None = None) -> None:
    arguments, console = parse(given), Console(stderr=True, width=240)
    packed = packed_checkpoints(arguments)
    prompt = prompt_ids(arguments, next(iter(packed.values())))
    place = arguments.work / (arguments.shape if arguments.model is None else arguments.model.name)
    contest = Contest(contestants(arguments), packed, place, prompt, arguments, console)
    contest.check()
    contest.measure()
    low, bandwidth, high = quartiles(contest.copies, "bandwidth")
    facts = {
        "model": f"{arguments.shape}, random weights" if arguments.model is None else arguments.model.name,
        "threads": arguments.threads,
        "prompt_tokens": len(prompt),
        "generated_tokens": arguments.new,
        "copy_bytes_per_second": {"low": low, "median": bandwidth, "high": high},
        "rounds": {" ".join(key): rounds for key, rounds in contest.rounds.items()},
    }
    publish(arguments.output, table(contest, bandwidth), COLUMNS, facts, console)
    console.print(f"copying, read and written: {bandwidth / 1e9:.1f} GB/s ({low / 1e9:.1f}–{high / 1e9:.1f})")


if __name__ == "__main__":
    main()
