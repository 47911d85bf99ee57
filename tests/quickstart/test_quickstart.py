"""The quickstart's parts, and a short run of the whole."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from edgerazor.errors import DataError
from edgerazor.quickstart.corpus import is_held_out, load_corpus
from edgerazor.quickstart.results import Results, Row
from edgerazor.quickstart.runner import run_quickstart
from edgerazor.quickstart.variants import CROSS_ENTROPY, DISTILLED, ROUNDED


def row(name: str, kind: str, bits: float, loss: float, kl: float = 0.1) -> Row:
    return Row(name, kind, bits, bits, int(bits * 1000), loss, loss / 2, kl, 0.9)


@pytest.mark.slow
def test_the_corpus_is_split_by_file_and_the_same_under_a_seed():
    first, again, other = load_corpus(seed=0), load_corpus(seed=0), load_corpus(seed=1)
    assert first == again
    assert first.training != other.training
    assert sorted(first.training) == sorted(other.training)
    assert not set(first.training) & set(first.held_out)
    share = sum(map(len, first.held_out)) / sum(map(len, first.training + first.held_out))
    assert 0.01 < share < 0.15


def test_what_is_held_out_depends_on_the_relative_path_alone():
    names = [f"package/module_{index}.py" for index in range(4000)]
    share = sum(is_held_out(name) for name in names) / len(names)
    assert 0.035 < share < 0.065


def test_own_data_wins_and_faults_in_it_are_named(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        load_corpus(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no \.py, \.txt or \.md file"):
        load_corpus(tmp_path)
    (tmp_path / "book.txt").write_text("\n\n".join(f"paragraph {index} " * 40 for index in range(200)))
    corpus = load_corpus(tmp_path / "book.txt")
    assert corpus.held_out
    assert len(corpus.training) > 3


def test_claims_follow_the_numbers_whichever_way_they_come_out():
    teacher = row("teacher, 16 bit", "teacher", 16, 2.0)
    good = Results([teacher, row("rounded", "rounded", 1.58, 3.0), row("distilled", "distilled", 1.58, 2.1)])
    bad = Results([teacher, row("rounded", "rounded", 1.58, 2.1), row("distilled", "distilled", 1.58, 3.0)])
    assert [claim.holds for claim in good.claims()] == [True]
    assert [claim.holds for claim in bad.claims()] == [False]
    assert good.gap(good.rows[2]) == pytest.approx(0.1)
    assert good.compression(good.rows[2]) == pytest.approx(16 / 1.58, rel=0.01)


@pytest.mark.usefixtures("onnx_operators")
@pytest.mark.slow
def test_a_short_run_does_the_whole_job(tmp_path, registry):
    # A part of what it takes by default: tokenizing all of the standard library would take longer than two trainings.
    (tmp_path / "data").mkdir()
    for source in sorted(Path(json.__file__).parents[1].glob("*.py"))[:100]:
        shutil.copy(source, tmp_path / "data")
    data, console = tmp_path / "data", Console(quiet=True)
    results = run_quickstart(tmp_path, registry=registry, smoke=True, data=data, console=console)
    names = [row.name for row in results.rows]
    engines = {"llama.cpp": "llama_cpp", "ONNX Runtime": "onnxruntime"}
    installed = [name for name, package in engines.items() if find_spec(package)]
    exported = [f"{bits} bit in {name}" for name in installed for bits in (1.88, 1.58)]
    assert names == ["teacher, 16 bit", *(variant.name for variant in (*ROUNDED, *DISTILLED, CROSS_ENTROPY)), *exported]
    for figures in (row for row in results.rows if row.kind == "exported"):
        assert figures.loss == pytest.approx(results.row("distilled", figures.bits).loss, abs=0.02)
    distilled, alone = results.row("distilled", 1.58), results.row("cross_entropy", 1.58)
    assert alone.steps == distilled.steps > 0
    assert alone.tokens == distilled.tokens
    assert distilled.bytes < results.teacher.bytes / 5
    assert distilled.loss < results.row("rounded", 1.58).loss
    assert results.samples
    stored = json.loads((tmp_path / "results.json").read_text())
    assert len(stored["claims"]) == 7
    report = (tmp_path / "report.md").read_text()
    assert all(row.name in report for row in results.rows)
    assert (tmp_path / "report.html").read_text().count("<svg ") == 2
    assert all((tmp_path / name).read_text().startswith("<svg ") for name in ("size_loss.svg", "curves.svg"))
