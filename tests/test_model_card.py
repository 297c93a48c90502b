"""The model card: figures come from the results file, attribution from the clips' table."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def write_card(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "model_cards"))
    import write_card

    return write_card


def scores(psds: float, f1: float) -> dict:
    classes = {"dog_bark": {"f1": f1}, "rain": {"f1": f1 / 2}}
    return {
        "psds1": {"frames": {"psds": 0.0}, "boxes": {"psds": psds}},
        "psds2": {"frames": {"psds": psds + 0.2}, "boxes": None},
        "event_based": {"macro": {"f1": f1}, "class_wise": classes},
        "segment_based": {"micro": {"f1": f1 + 0.1}, "class_wise": classes},
    }


def test_card_is_filled_from_results_and_clips(write_card, tmp_path, monkeypatch, capsys):
    model = tmp_path / "easysed-tiny"
    model.mkdir()
    provenance = {"folds": ["1", "2"], "excluded_licenses": ["CC-Sampling+"], "seed": 7}
    config = {"backbone": "cnn", "id2label": {"0": "dog_bark", "1": "rain"}, "provenance": provenance}
    (model / "config.json").write_text(json.dumps(config))
    results = {
        "command": "python evaluate.py",
        "split": "test",
        "num_files": 3,
        "exits": {"1": scores(0.11, 0.42), "2": scores(0.31, 0.54)},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    rows = ["file_name,label,fold,author,license,source_url"]
    rows += ["audio/a.ogg,rain,1,Ann,CC0,http://a", "audio/b.ogg,rain,2,Bob,CC-Sampling+,http://b"]
    rows += ["audio/c.ogg,rain,3,Cy,CC-BY,http://c", "audio/d.ogg,dog_bark,2,Di,CC-BY,http://d"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    arguments = ["--model", str(model), "--results", str(tmp_path / "results.json"), "--clips", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["write_card.py", *arguments])
    write_card.main()
    card = (model / "README.md").read_text()
    assert "| 1 | 0.110 | 0.310 | 0.420 | 0.520 |" in card and "| 2 | 0.310 | 0.510 | 0.540 | 0.640 |" in card
    assert "| dog_bark | 0.540 | 0.540 |" in card and "| rain | 0.270 | 0.270 |" in card
    assert "| d.ogg | Di | CC-BY | http://d |" in card and "The 2 training clips" in card
    assert "`python evaluate.py`" in card
    assert "b.ogg" not in card and "c.ogg" not in card
    assert '"seed": 7' in card and "$" not in card
    assert "Not calibrated" in card


def test_trust_comes_from_the_results(write_card):
    figures = {"ece": 0.04, "brier": 0.11, "nll": 0.35, "aurc": 0.05}
    setting = {
        "num_reported": 390,
        "raw": {**figures, "ece": 0.12},
        "temperature": figures,
        "confidence": figures,
        "onset": {"coverage": 0.9},
        "offset": {"coverage": 0.912},
        "decisions": {"accept": {"num": 150, "share_right": 0.97}, "rule": ["accepted from 0.95 on"]},
    }
    fitted_on = {"num_recordings": 150, "split": "validation", "num_events": {"rain": 30, "dog_bark": 12}}
    trust = {"calibration": "abcd", "fitted_on": fitted_on, "settings": {"auto, mc+shifts": setting}}
    text = write_card.trust_text({"trust": trust})
    assert (
        "150 recordings of `validation` with 42 events" in text
        and "| raw score | 0.120 | 0.110 | 0.350 | 0.050 |" in text
    )
    assert "hold 90 % of the true onsets and 91 % of the true offsets" in text
    assert "150 are accepted, of which 97 % are right" in text and "- accepted from 0.95 on" in text
