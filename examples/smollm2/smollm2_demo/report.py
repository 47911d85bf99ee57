"""`report.md` and `results.json` of a run, and its tables on the screen."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from edgerazor.core.atomic import replaced
from smollm2_demo.measure import QUESTIONS


def write_report(results: Mapping[str, Any], folder: Path, console: Console) -> None:
    """Write both files and print the report."""
    text = "\n".join(_lines(results, folder)) + "\n"
    with replaced(folder / "report.md") as path:
        path.write_text(text, encoding="utf-8")
    content = {**results, "claims": [dict(zip(("text", "holds"), claim, strict=True)) for claim in claims(results)]}
    with replaced(folder / "results.json") as path:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(Markdown(text))
    console.print(f"report: {folder / 'report.md'}", highlight=False, markup=False, soft_wrap=True)


def claims(results: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """What the figures are to show, and whether they do."""
    found = []
    for student, engines in results["same_tokens"].items():
        distilled = results["models"][f"{student} distilled"]
        for key, name in (("loss", "held-out loss"), ("kl_teacher", "KL to the teacher")):
            for kind in ("rounded", "calibrated"):
                other = results["models"][f"{student} {kind}"]
                text = f"{student}: {name} {distilled[key]:.4f} distilled, {other[key]:.4f} {kind}"
                found.append((text, distilled[key] < other[key]))
        for engine, prompts in engines.items():
            found.append((f"{student} in {engine}: {_same(prompts)}", all(prompt["tie"] for prompt in prompts)))
    return found


def _lines(results: Mapping[str, Any], folder: Path) -> Iterator[str]:
    machine, teacher = results["machine"], results["models"]["teacher"]
    students = list(results["exports"])
    yield f"# {results['teacher']['origin']}: {' and '.join(students)}\n"
    asked = "a few steps each (--smoke)" if machine["minutes"] is None else f"--minutes {machine['minutes']:g}"
    yield (
        f"{machine['processor']}; {machine['threads']} threads, torch {machine['torch']}; {asked}, seed "
        f"{machine['seed']}, {machine['seconds']:.0f} s in all. Dialogues: {machine['data']}; held-out figures are of "
        f"{teacher['tokens']} tokens of answers that no student was trained on.\n"
    )
    yield "## What was gained\n"
    yield from (f"- {'holds' if holds else '**does not hold**'}: {text}" for text, holds in claims(results))
    yield "\n## Held-out text\n"
    yield from _models(results)
    yield "\n## Files and speed\n"
    yield from _speeds(results)
    if results["tasks"]:
        yield "\n## Public tasks\n"
        yield from _tasks(results["tasks"])
    yield "\n## Answers, side by side\n"
    yield from _answers(results["answers"])
    yield "\n## Chat\n"
    yield "```"
    for student in students:
        for place in ("model.gguf", "onnx", "run/packed"):
            yield f'edgerazor generate {folder / student / place} --prompt "Why is the sky blue?"'
    yield f"llama-cli -m {folder / students[0] / 'model.gguf'}"
    yield "```"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(row)} |"


def _models(results: Mapping[str, Any]) -> Iterator[str]:
    header = ("model", "MB", "bits per weight", "loss", "KL to teacher", "same top token", "steps", "tokens", "minutes")
    rows = []
    for name, row in results["models"].items():
        training = ("–",) * 3
        if "steps" in row:
            training = (f"{row['steps']}", f"{row['trained_tokens']:,}", f"{row['seconds'] / 60:.1f}")
        figures = (f"{row['loss']:.4f}", f"{row['kl_teacher']:.4f}", f"{row['top1_agreement']:.1%}")
        rows.append((name, f"{row['bytes'] / 1e6:.1f}", f"{row['bits']:.2f}", *figures, *training))
    yield from _table(header, rows)
    yield "\nLoss and KL in nats per token; MB of the file that holds the tensors, bits of it per weight of the model."


def _speeds(results: Mapping[str, Any]) -> Iterator[str]:
    header = ("model", "engine", "MB", "prompt, tokens/s", "written, tokens/s")
    rows = []
    for name, speeds in results["speeds"].items():
        model = results["models"]["teacher" if name == "teacher" else f"{name} distilled"]
        files = {"packed": model, **results["exports"].get(name, {})}
        for row in speeds:
            size = files[row["kind"]]["bytes"]
            rows.append((name, row["engine"], f"{size / 1e6:.1f}", f"{row['read']:.0f}", f"{row['write']:.1f}"))
    yield from _table(header, rows)


def _same(prompts: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for prompt in prompts:
        if prompt["tokens"] == prompt["wanted"]:
            parts.append(f"all {prompt['wanted']} greedy tokens are those of the packed checkpoint")
            continue
        kind = "a near-tie" if prompt["tie"] else "no tie"
        emulated = prompt.get("rounded_gap")
        also = "" if emulated is None else f", {emulated:.3f} with inputs rounded to int8 in Transformers"
        parts.append(
            f"{prompt['tokens']} of {prompt['wanted']} greedy tokens, then {kind}: the two likeliest are "
            f"{prompt['gap']:.3f} apart{also}, and elsewhere in the text such rounding moves a lead by up to "
            f"{prompt['rounding']:.3f}"
        )
    return "; ".join(parts)


def _tasks(tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    names = list(next(iter(tasks.values())))
    rows = [
        (f"{task}, {found[names[0]]['items']} items", *(_share(found[name]) for name in names))
        for task, found in tasks.items()
    ]
    yield from _table(("task", *names), rows)
    yield "\nRight answers by log likelihood per byte, with one standard error."


def _share(figures: Mapping[str, float]) -> str:
    return f"{figures['accuracy']:.1%} ± {figures['error']:.1%}"


def _answers(answers: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "The likeliest tokens, cut where long; students answer from `model.gguf` where llama.cpp is installed.\n"
    for index in range(len(answers["teacher"])):
        yield f"### {QUESTIONS[index]}\n"
        rows = [(name, _cell(texts[index])) for name, texts in answers.items()]
        yield from _table(("model", "answer"), rows)
        yield ""


def _cell(text: str) -> str:
    """An answer as one cell of a table."""
    return " ".join(text.replace("|", "\\|").split()) or "(nothing)"
