"""Two results of an evaluation, compared figure by figure."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import compare_results

RESULT = {"command": "a", "exits": {"1": {"f1": 0.5, "none": None, "costs": {"milliseconds_per_10_s": 4.0}}}}


@pytest.mark.parametrize(
    ("change", "status", "line"),
    [
        ({}, 0, "exits: 1 figures, largest difference 0"),
        ({"f1": 0.50005}, 0, "exits: 1 figures, largest difference 5e-05 (/1/f1)"),
        ({"f1": 0.6}, 1, "exits: 1 figures, largest difference 0.1 (/1/f1)"),
        ({"none": 0.2}, 1, "exits: 2 figures, largest difference inf (/1/none)"),
        ({"more": 1}, 1, "exits: 2 figures, largest difference inf (/1/more)"),
        ({"costs": {"milliseconds_per_10_s": 9.0}}, 0, "exits: 1 figures, largest difference 0"),
    ],
)
def test_what_differs_is_named(tmp_path, capsys, change, status, line):
    other = {"command": "b", "exits": {"1": RESULT["exits"]["1"] | change}}
    paths = [tmp_path / "one.json", tmp_path / "other.json"]
    for path, result in zip(paths, (RESULT, other), strict=True):
        path.write_text(json.dumps(result))
    assert compare_results.main([str(path) for path in paths]) == status
    assert capsys.readouterr().out.splitlines() == [line, "trust: not in both"]


def test_nothing_in_common_is_not_the_same(tmp_path, capsys):
    paths = [tmp_path / "one.json", tmp_path / "other.json"]
    for path, result in zip(paths, (RESULT, {"other": 1}), strict=True):
        path.write_text(json.dumps(result))
    assert compare_results.main([str(path) for path in paths]) == 1
    assert capsys.readouterr().out.splitlines() == ["exits: not in both", "trust: not in both"]
