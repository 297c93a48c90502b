"""Cross-validation on two made-up tones: it learns, it resumes, it never sees the fold that it is tested on."""

import csv
import json
import sys

import crossvalidate
import numpy as np
import pytest
import soundfile
import torch
import yaml

RATE = 16000
SETTINGS = {
    "steps": 80,
    "batch_size": 4,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "ema_decay": 0.9,
    "model": {
        "stem_channels": 4,
        "stage_channels": [4, 4],
        "stage_depths": [1, 1],
        "temporal_channels": 8,
        "temporal_dilations": [1],
        "exit_hidden_size": 8,
        "exit_dilations": [1],
        "dropout": 0.0,
        "clip_loss_weight": 1.0,
        "class_loss_weight": 1.0,
    },
    "recipe": {
        "num_variants": 1,
        "frames": 60,
        "mix_probability": 0.2,
        "noise_probability": 0.0,
        "filter_db": 0.0,
        "gain_db": [0.0, 0.0],
        "num_mel_masks": 0,
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "fold", "license"])
        for fold in range(1, 6):
            for label, hz in (("high", 4000.0), ("low", 400.0)):
                time = np.arange(RATE) / RATE
                noise = 0.003 * np.random.default_rng(fold).standard_normal(RATE)
                samples = noise + 0.3 * np.sin(2 * np.pi * hz * (1 + 0.02 * fold) * time) * (time > 0.3)
                soundfile.write(folder / f"{label}{fold}.wav", samples[: RATE - fold * (label == "low")], RATE)
                writer.writerow([f"{label}{fold}.wav", label, fold, "CC0"])
    return folder


def run(monkeypatch, data, out, *arguments):
    config = out.parent / "config.yaml"
    config.write_text(yaml.safe_dump({**SETTINGS, "clips": str(data)}))
    monkeypatch.setattr(sys, "argv", ["crossvalidate.py", "--config", str(config), "--out", str(out), *arguments])
    return crossvalidate.main()


def test_two_folds_are_learned_and_not_trained_twice(monkeypatch, tmp_path, data, capsys):
    out = tmp_path / "results.json"
    assert run(monkeypatch, data, out, "--seeds", "0", "--folds", "1,4") == 0
    results = json.loads(out.read_text())
    assert [(r["seed"], r["fold"]) for r in results["runs"]] == [(0, "1"), (0, "4")]
    for one in results["runs"]:
        assert one["exits"].keys() == {"1", "2", "3", "ensemble"}
        assert {view: scores["accuracy"] for view, scores in one["exits"]["3"].items()} == {
            "plain": 1.0,
            "mc": 1.0,
            "shifts": 1.0,
            "mc+shifts": 1.0,
        }
        assert one["wrong"] == {}
    assert [cost["exit"] for cost in results["costs"]] == [1, 2, 3]
    assert "plain 100.00 ± nan" in capsys.readouterr().out
    monkeypatch.setattr(crossvalidate, "train_network", lambda *_: pytest.fail("trained again"))
    assert run(monkeypatch, data, out, "--seeds", "0", "--folds", "1,4") == 0
    assert json.loads(out.read_text()) == results


def test_the_held_out_fold_is_never_trained_on(monkeypatch, tmp_path, data):
    seen = []

    def fake(settings, fold):
        seen.append(({clip.source for clip in fold.train}, {clip.source for clip in fold.test}))
        return {"seed": fold.seed, "fold": fold.name, "exits": {"1": {"plain": {"accuracy": 0.5, "nll": 1.0}}}}

    monkeypatch.setattr(crossvalidate, "run_fold", fake)
    assert run(monkeypatch, data, tmp_path / "results.json", "--seeds", "0,1") == 0
    assert len(seen) == 10
    for train, test in seen:
        assert len(test) == 2 and len(train) == 8 and not train & test


def test_same_seed_same_network(data):
    settings = crossvalidate.Settings(**{**SETTINGS, "steps": 3, "clips": str(data)})
    work = crossvalidate.SideBySide(settings, num_workers=1)
    work.prepare()
    fold = crossvalidate.Fold("1", 0, work.by_fold["2"] + work.by_fold["3"], work.by_fold["1"], work.labels)
    first, second = (crossvalidate.train_network(settings, fold)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_side_by_side_as_one_after_the_other(monkeypatch, tmp_path, data):
    monkeypatch.setattr(crossvalidate, "CLIPS_PER_PART", 1)
    config = {**SETTINGS, "steps": 3, "recipe": {**SETTINGS["recipe"], "num_variants": 2}}
    monkeypatch.setitem(SETTINGS, "steps", config["steps"])
    monkeypatch.setitem(SETTINGS, "recipe", config["recipe"])
    results = []
    for workers in ("1", "3"):
        out = tmp_path / f"{workers}.json"
        assert run(monkeypatch, data, out, "--seeds", "0,1", "--folds", "1,2", "--workers", workers) == 0
        results.append(json.loads(out.read_text())["runs"])
        for one in results[-1]:
            one.pop("seconds")
    assert len(results[0]) == 4 and results[0] == results[1]


def test_no_workers_is_an_error(monkeypatch, tmp_path, data, capsys):
    assert run(monkeypatch, data, tmp_path / "results.json", "--workers", "0") == 2
    assert capsys.readouterr().err == "crossvalidate.py: error: --workers must be at least 1, got 0\n"


def test_the_ensemble_is_the_mean_of_the_exits():
    probabilities = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]])
    result = crossvalidate.scores({"plain": probabilities}, torch.tensor([0]))
    assert result["ensemble"]["plain"] == pytest.approx({"accuracy": 1.0, "nll": -np.log(0.55)}, abs=1e-6)


def test_shifts_keep_the_length_and_fill_with_silence():
    samples = np.arange(1, 6, dtype=np.float32)
    assert crossvalidate.shift_samples(samples, 2).tolist() == [0, 0, 1, 2, 3]
    assert crossvalidate.shift_samples(samples, -2).tolist() == [3, 4, 5, 0, 0]
    assert crossvalidate.shift_samples(samples, 0).tolist() == samples.tolist()


def test_scores_by_hand():
    probabilities = torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.5, 0.5 + 1e-6]]])
    result = crossvalidate.scores({"plain": probabilities}, torch.tensor([0, 0, 1]))["1"]["plain"]
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["nll"] == pytest.approx(-(np.log(0.9) + np.log(0.4) + np.log(0.5)) / 3, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "stepz=3"], r"unknown settings \['stepz'\]"),
        (["--set", "steps"], "--set takes KEY=VALUE, got 'steps'"),
    ],
)
def test_bad_settings_are_one_line(monkeypatch, tmp_path, data, capsys, arguments, message):
    assert run(monkeypatch, data, tmp_path / "results.json", *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    with pytest.raises(ValueError, match=message):
        crossvalidate.load_settings(tmp_path / "config.yaml", arguments[1:])
