"""The rules of the contest: turns, gates before times, peers that are missing."""

import argparse
import sys
from pathlib import Path

import interleaved
import peers
import plain
import pytest
import torch
from answers import Case, GateError


def contest(worker, contestants, rounds=3):
    """What `compete` makes of workers in this process."""
    values = {"only": None, "in_process": True, "quick": True, "device": "cpu", "threads": 1, "rounds": rounds}
    arguments = argparse.Namespace(**values)
    return interleaved.compete(Path("unused"), worker, contestants, ["case"], arguments)


def test_contestants_take_turns():
    calls = []
    results = contest(
        lambda name, _: lambda case: Case(lambda: calls.append(name)), dict.fromkeys("AB", sys.executable)
    )
    warm_up, rounds, memory = 4, 6, 2
    assert len(calls) == warm_up + rounds + memory
    assert "".join(calls[warm_up : warm_up + rounds]) == "ABABAB"
    assert all(len(result.seconds) == 3 for result in results.values())


def test_a_wrong_result_is_not_timed():
    calls = []

    def worker(name, _):
        def open_case(case):
            if name == "wrong":
                plain.check("the value", 0.5, 0.1)
            return Case(lambda: calls.append(name))

        return open_case

    results = contest(worker, dict.fromkeys(("right", "wrong"), sys.executable))
    assert results["wrong", "case"].problem.startswith("gate failed: the value differs by 5.00e-01")
    assert results["wrong", "case"].seconds == [] and "wrong" not in calls
    assert results["right", "case"].problem is None


def test_what_is_no_number_fails_the_gate():
    with pytest.raises(GateError, match="differs by nan"):
        plain.check("the value", float("nan"), 0.1)


def test_a_missing_peer_is_called_missing():
    results = contest(lambda name, _: lambda case: Case(lambda: None), {"ours": sys.executable, "peer": None})
    assert results["peer", "case"].problem == "missing" and results["peer", "case"].median is None
    assert interleaved.ratio(results["ours", "case"], results["peer", "case"])["ratio"] is None


def test_an_environment_half_made_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    python = peers.folder() / "original" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert peers.interpreter("original") is None
    (peers.folder() / "original" / "installed").touch()
    assert peers.interpreter("original") == python


def test_a_ratio_comes_with_the_spread_of_its_rounds():
    own, other = interleaved.Result(seconds=[2.0, 3.0, 4.0]), interleaved.Result(seconds=[1.0, 2.0, 4.0])
    assert interleaved.ratio(own, other) == {"ratio": 1.5, "ratio_low": 1.0, "ratio_high": 2.0}


@pytest.mark.parametrize("floor", [None, 1e-8])
def test_divergences_in_parts_are_those_of_the_whole(floor):
    generator = torch.Generator().manual_seed(0)
    z, u = (3 * torch.randn(70, 11, generator=generator) for _ in range(2))
    labels = torch.arange(70) % 11
    parts = plain.divergences_in_parts(z, u, labels, floor)
    for part, whole in zip(parts, plain.row_divergences(z.double(), u.double(), labels, floor), strict=True):
        torch.testing.assert_close(part, whole)
