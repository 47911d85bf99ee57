"""`report`: what is on the page, what a run lacks, and what is refused."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgerazor.core.registry import Registry
from edgerazor.inference.generate import GenerationSettings, generate
from edgerazor.report.packed import bits_of_layers, packed_facts
from edgerazor.report.records import read_run
from tests.commands import fail, succeed

VOID = {"meta", "br", "img", "use", "link"}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, and the text inside each."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.append((self.open[-1], " ".join(data.split())))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def report(folder: Path, *arguments: object) -> Page:
    succeed("report", *arguments, "--output", folder / "report.html")
    return Page(folder / "report.html")


@pytest.mark.slow
def test_a_whole_run_is_shown_with_all_its_parts(trained: Path, tmp_path: Path) -> None:
    page = report(tmp_path, f"first={trained}", f"second={trained / 'packed'}", "--no-answers", "--title", "a <b> & c")
    assert page.said("h1") == ["a <b> & c"]
    assert page.said("h2") == ["Runs", "Size and quality", "Training", "Layers compared", "Bits per layer"]
    titles = page.said("figcaption")
    assert {"loss", "task", "eakld", "feature_mse", "learning rate"} <= set(titles)
    assert {"eakld/forward_kl", "first: feature_mse"} <= set(titles)
    assert "KL to the teacher, nats per token" in titles
    assert "held-out loss above the teacher's, nats per token" in titles
    metrics = json.loads((trained / "metrics.json").read_text())
    row = page.said("td")
    assert row[0] == "training run" and f"{metrics['evaluation']['eval_loss']:.4f}" in row and "6" in row
    assert page.said("dt") and any(line.startswith("Training curves: a packed checkpoint") for line in page.said("dt"))


@pytest.mark.slow
def test_the_page_fetches_nothing_runs_nothing_and_can_be_read_aloud(trained: Path, tmp_path: Path) -> None:
    page = report(tmp_path, trained, "--no-answers")
    assert not page.open, "every element is closed"
    assert not page.of("script") and not page.of("img") and not page.of("link")
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    references = [value for _, attributes in page.elements for key, value in attributes.items() if "href" in key]
    assert references and all(reference and reference.startswith("#") for reference in references)
    named = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(named) == len(set(named)) and {reference[1:] for reference in references if reference} <= set(named)
    pictures = page.of("svg")
    assert len(pictures) > 5 and all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert "#fe0" not in page.source and "url(http" not in page.source
    assert len(page.of("caption")) == len(page.of("table"))
    assert all(head.get("scope") in ("row", "col") for head in page.of("th"))
    again = page.source
    assert report(tmp_path, trained, "--no-answers").source == again


@pytest.mark.slow
def test_a_run_that_was_interrupted_is_shown_as_far_as_it_came(copied: Callable[..., Path], tmp_path: Path) -> None:
    page = report(tmp_path, copied("cut", "metrics.json", "packed", "checkpoint-6"), "--no-answers")
    assert "training run, not finished" in page.said("td") and "4 of 6" in page.said("td")
    assert {"loss", "learning rate", "cut: feature_mse"} <= set(page.said("figcaption"))
    lacking = " ".join(page.said("dt"))
    assert "The end: the run was interrupted" in lacking and "Bits per layer: there is no packed checkpoint" in lacking


def test_a_run_that_just_began_has_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    page = report(tmp_path, tmp_path / "new", "--prompt", "Hello")
    assert page.said("h2") == ["Runs"]
    assert any("nothing was logged before it ended" in line for line in page.said("dt"))
    assert "Answers: there is no model that could answer" in page.said("dt")


def test_the_bits_of_all_layers_are_those_of_the_manifest(trained: Path, registry: Registry) -> None:
    facts = packed_facts(trained / "packed", registry)
    assert sum(of.weights * of.bits for of in facts.matrices) / sum(of.weights for of in facts.matrices) == (
        pytest.approx(facts.bits)
    )
    assert [layer for layer, _ in bits_of_layers(facts.matrices)] == [0, 1]
    assert {round(bits, 2) for _, bits in bits_of_layers(facts.matrices)} == {2.08}


@pytest.mark.slow
def test_models_answer_the_same_questions(trained: Path, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"prompt": "def f1(x):"}\n\n', encoding="utf-8")
    options = ("--prompt", "<i>x</i> = ", "--prompts", tmp_path / "questions.jsonl", "--max-new-tokens", 5)
    page = report(tmp_path, f"a={trained}", f"b={trained.parent / 'model'}", *options)
    assert page.said("h3")[-2:] == ["<i>x</i> =", "def f1(x):"]
    written = generate(trained / "packed", "def f1(x):", GenerationSettings(5), registry=registry)
    assert page.said("pre")[2] == " ".join(written.split())
    assert page.said("h4") == ["a", "b"] * 2


def test_what_is_damaged_is_one_message(copied: Callable[..., Path], tmp_path: Path) -> None:
    broken = copied("broken")
    (broken / "metrics.json").write_text("{", encoding="utf-8")
    assert f"{broken / 'metrics.json'}: is not valid JSON" in fail("report", broken)
    (broken / "metrics.json").write_text('{"steps": 6, "history": 5}', encoding="utf-8")
    assert "its log is no list of objects" in fail("report", broken)
    (broken / "metrics.json").write_text('{"steps": 6, "evaluation": 5}', encoding="utf-8")
    assert "evaluation: expected an object, found int" in fail("report", broken)
    (broken / "metrics.json").unlink()
    (broken / "recipe.yaml").write_text("a: [", encoding="utf-8")
    assert f"{broken / 'recipe.yaml'}: line 1: not valid YAML" in fail("report", broken)
    (broken / "recipe.yaml").write_text("quantization: [1]", encoding="utf-8")
    assert "quantization" in fail("report", broken)
    (broken / "recipe.yaml").unlink()
    (broken / "packed" / "model.safetensors").unlink()
    assert "model.safetensors" in fail("report", broken)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/none"], "none: there is no such file or folder"),
        (["{}"], "is no run: expected the folder of `edgerazor train`"),
        (["{}/notes.txt"], "notes.txt: is no run"),
        (["{}/a/run", "{}/b/run"], "another model is named 'run' too; give names of your own"),
        (["{}/a/run", "--tasks", "{}/notes.txt"], "notes.txt: is not valid JSON"),
        (["{}/a/run", "--tasks", "rum={}/list.json"], "no run is named 'rum'; did you mean 'run'?"),
        (["{}/a/run", "--tasks", "{}/list.json"], "list.json: holds no results of tasks"),
        (["{}/a/run", "--prompts", "{}/empty.txt"], "empty.txt: holds no question"),
        (["{}/a/run", "--prompts", "{}/bad.jsonl"], 'bad.jsonl: line 1: expected {"prompt": "..."}'),
        (["{}/a/run", "--no-answers", "--prompt", "x"], "--no-answers asks nothing"),
        (["{}/a/run", "--output", "{}"], "is a folder; expected the name of a file such as report.html"),
        (["{}/a/run", "--output", "{}/notes.txt/r.html"], "notes.txt: is a file"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "run" / "checkpoints").mkdir(parents=True)
    for name, text in (("notes.txt", "hello"), ("list.json", "{}"), ("empty.txt", "\n"), ("bad.jsonl", "[1]")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert message in fail("report", *(argument.format(tmp_path) for argument in arguments))


def test_runs_inside_a_folder_are_pointed_out(trained: Path) -> None:
    assert f"runs lie in it: give {trained}" in fail("report", trained.parent)


def test_a_resumed_run_that_is_newer_than_its_figures_counts(copied: Callable[..., Path], registry: Registry) -> None:
    folder = copied("resumed")
    state = folder / "checkpoints" / "checkpoint-6" / "trainer_state.json"
    content = json.loads(state.read_text())
    state.write_text(json.dumps({**content, "global_step": 9, "max_steps": 20}))
    record = read_run("resumed", folder, registry)
    assert (record.finished, record.step, record.last_step) == (False, 9, 20)
