"""The trust report: its small parts by hand, and the whole of it as `evaluate.py --report` on a tiny model."""

import json
import sys
from pathlib import Path

import calibrate
import evaluate
import numpy as np
import pytest
import torch
import trust_report
from test_calibrate import checkpoint, run_main, small, split_dir  # noqa: F401
from trust_report import bootstrap, calibration_floor, chosen_settings, markdown, proper_scores

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import trust_cost
import trust_table


def test_scores_by_hand():
    found = proper_scores(np.array([0.9, 0.8, 0.3]), np.array([True, False, False]))
    assert found["brier"] == pytest.approx((0.01 + 0.64 + 0.09) / 3)
    assert found["nll"] == pytest.approx(-(np.log(0.9) + np.log(0.2) + np.log(0.7)) / 3)
    assert found["ece"] == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)


def test_calibrated_events_show_an_error_by_chance_that_falls_with_their_number():
    few, many = np.full(40, 0.7), np.full(4000, 0.7)
    assert 0.03 < calibration_floor(few) < 0.1
    assert calibration_floor(many) < calibration_floor(few) / 5
    assert calibration_floor(np.ones(10)) == 0.0


def test_recordings_are_drawn_whole():
    # one recording of many events is in or out as a whole: the share of its events is 0 or large
    recording = np.array([0] * 8 + [1, 2, 3])
    low, high = bootstrap(recording, 4, lambda rows: float((recording[rows] == 0).mean()))
    assert low == 0.0 and high > 0.85
    assert bootstrap(recording, 4, lambda rows: 1.0) == [1.0, 1.0]


def test_settings_of_the_report():
    settings = chosen_settings(3)
    assert settings[0] == (0, "mc", 2) and len(settings) == len(set(settings)) == 1 + 8 + 4
    assert {method for index, method, _ in settings if index == 3} == {"none", "mc", "exits", "moments"}


def test_a_report_needs_a_calibration(split_dir, checkpoint, tmp_path, monkeypatch, capsys):  # noqa: F811
    arguments = ["--model", checkpoint, "--data", split_dir, "--split", "dev", "--report", tmp_path / "report"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
    assert evaluate.main() == 2
    assert "needs a calibrated model: run training/calibrate.py first" in capsys.readouterr().err


def test_the_whole_report(split_dir, checkpoint, small, tmp_path, monkeypatch, capsys):  # noqa: F811
    assert run_main(monkeypatch, "--model", checkpoint, "--data", split_dir, "--split", "dev") == 0
    monkeypatch.setattr(trust_report, "NUM_BOOTSTRAPS", 5)
    monkeypatch.setattr(trust_report, "NUM_SPLITS", 3)
    out, folder = tmp_path / "results.json", tmp_path / "report"
    arguments = ["--model", checkpoint, "--data", split_dir, "--split", "dev", "--report", folder, "--out", out]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
    assert evaluate.main() == 0
    assert "| auto, mc+shifts |" in capsys.readouterr().out
    trust = json.loads(out.read_text())["trust"]
    assert trust["calibration"] == json.loads((checkpoint / "config.json").read_text())["calibration"]["id"]
    default = trust["settings"]["auto, mc+shifts"]
    assert default["num_reported"] == sum(default["decisions"][word]["num"] for word in ("accept", "review", "reject"))
    rows = trust["events"]["default"]
    assert len(rows["right"]) == default["num_reported"]
    assert default["share_right"] == pytest.approx(np.mean(rows["right"]))
    assert default["confidence"]["brier"] == pytest.approx(
        np.mean((np.array(rows["confidence"]) - rows["right"]) ** 2), abs=1e-3
    )
    assert sum(trust["auto_exits"].values()) == pytest.approx(1.0)
    names = {"trust.md", "reliability.png", "risk_coverage.png", "interval_coverage.png", "accuracy_compute.png"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "trust.md").read_text() == markdown(trust)
    # the table over seeds reads the same file
    monkeypatch.setattr(sys, "argv", ["trust_table.py", str(out), str(out)])
    trust_table.main()
    table = capsys.readouterr().out
    assert (
        f"{default['confidence']['ece']:.3f} ± 0.000" in table and "temperature scaling alone, default setting" in table
    )


def test_the_cost_is_measured_for_every_setting(checkpoint, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(sys, "argv", ["trust_cost.py", "--model", str(checkpoint), "--seconds", "1", "--repeats", "1"])
    threads = torch.get_num_threads()
    try:
        trust_cost.main()
    finally:
        torch.set_num_threads(threads)
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in [*trust_cost.SETTINGS, "20 passes x 5 shifts, naive"])
    assert "at most 1.3" in table and calibrate.PASSES == 20
