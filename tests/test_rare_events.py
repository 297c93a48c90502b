"""The leave-one-class-out benchmark: which clips are drawn, what is tested, what the table says."""

import argparse
import csv
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from new_label import set_new_rows, with_new_label
from tiny import tiny_model
from tiny_rare_event import RATE, noise, tone

from modeling_easysed import EasySEDFeatureExtractor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import rare_events

EXTRACTOR = EasySEDFeatureExtractor(feature_size=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes with eight clips of four recordings in folds 1 to 3, and two in fold 5; outside sounds; a split."""
    root = tmp_path_factory.mktemp("data")
    (root / "esc10" / "audio").mkdir(parents=True)
    rows = []
    for label, pitch in (("rain", 400), ("beep", 2000)):
        for number in range(10):
            fold = "5" if number > 7 else str(number % 3 + 1)
            name = f"audio/{label}{number}.wav"
            soundfile.write(root / "esc10" / name, tone(pitch + 10 * number, number, 2.0), RATE)
            own = {"file_name": name, "label": label, "fold": fold, "freesound_id": f"{label}{number % 4}"}
            rows.append({**own, "license": "CC-Sampling+" if number == 7 else "CC0"})
    write_table(root / "esc10" / "metadata.csv", rows, ",")
    (root / "outside").mkdir()
    for split in ("train", "test"):
        soundfile.write(root / "outside" / f"{split}.wav", noise(1, 1.0), RATE)
    write_table(
        root / "outside" / "metadata.csv",
        [{"file_name": f"{split}.wav", "split": split} for split in ("train", "test")],
        ",",
    )
    (root / "soundscapes" / "audio" / "test").mkdir(parents=True)
    for name in ("a.wav", "b.wav"):
        soundfile.write(root / "soundscapes" / "audio" / "test" / name, noise(2, 10.0), RATE)
    columns = ("filename", "onset", "offset", "event_label", "source", "snr_db")
    scapes = [("a.wav", 1.0, 3.0, "beep", "beep9.wav", 9.0), ("a.wav", 4.0, 5.0, "rain", "rain9.wav", 9.0),
              ("b.wav", "", "", "", "", "")]  # fmt: skip
    table = [dict(zip(columns, row, strict=True)) for row in scapes]
    write_table(root / "soundscapes" / "test.tsv", table, "\t")
    return root


def write_table(path: Path, rows: list[dict], delimiter: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def always(bias: float):
    model = with_new_label(tiny_model(), "beep", seed=0)
    set_new_rows(model, torch.zeros(3, 8), torch.full((3,), bias))
    model.config.decoding = {"method": "boxes", "classes": {"3": {"threshold": 0.5}}}
    return model


# ---- what is learned from --------------------------------------------------------------------------------------------


def test_recordings_are_drawn_before_second_clips_of_them(data):
    for seed in range(5):
        rows = rare_events.draw_clips(data, "beep", 6, seed)
        assert len({row["freesound_id"] for row in rows[:4]}) == 4
        assert len({row["file_name"] for row in rows}) == 6
        assert all(row["label"] == "beep" and row["fold"] != "5" and row["license"] == "CC0" for row in rows)
    assert rare_events.draw_clips(data, "beep", 6, 0) != rare_events.draw_clips(data, "beep", 6, 1)


def test_more_clips_than_there_are(data):
    with pytest.raises(ValueError, match="beep has 7 clips in folds 1, 2, 3, 8 are asked"):
        rare_events.draw_clips(data, "beep", 8, 0)


def test_the_background_lacks_the_class(data, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(
        rare_events, "SoundscapeMixer", lambda clips, *rest: heard.extend(clips) or original(clips, *rest)
    )
    original = sys.modules["soundscapes"].SoundscapeMixer
    folder = rare_events.write_background(tmp_path / "background", data, "beep", 0.5)
    assert {clip.label for clip in heard} == {"rain", None} and {clip.source for clip in heard} >= {"train.wav"}
    assert not {"test.wav", "rain8.wav", "rain9.wav"} & {clip.source for clip in heard}
    assert len(list(folder.iterdir())) == 3


def test_a_folder_refers_to_the_audio_it_comes_from(data, tmp_path):
    rows = rare_events.draw_clips(data, "beep", 2, 0)
    folder = rare_events.write_folder(tmp_path / "clips", rows, data / "esc10")
    assert [row["label"] for row in rare_events.read_metadata(folder)] == ["beep"] * 2
    assert all((folder / row["file_name"]).is_file() for row in rows)


# ---- what is tested on -----------------------------------------------------------------------------------------------


def test_scenes_with_and_without_the_class(data):
    """Two test soundscapes, three mixed ones without the class, and mixed ones with it until there are four events."""
    scenes = rare_events.scenes_of_test(data, "beep", hours=30 / 3600, min_events=4)
    events = [event for scene in scenes for event in scene.events]
    assert scenes[0].events == [(1.0, 3.0, "beep9.wav")] and scenes[1].events == []
    assert len(events) >= 4 and {clip for *_, clip in events} <= {"beep8.wav", "beep9.wav"}
    assert sum(not scene.events for scene in scenes) == 4


def test_figures_by_hand():
    """The model says 0.88 throughout: it finds the event that fills a scene; every scene without is a false alarm."""
    scenes = [rare_events.Scene(noise(0, 10.0), [(0.0, 10.0, "a.wav")]), *[rare_events.Scene(noise(1, 10.0), [])] * 3]
    figures = rare_events.figures_of_test(always(2.0), EXTRACTOR, "beep", scenes)
    assert (figures["recall"]["found"], figures["recall"]["total"], figures["recall"]["recordings"]) == (1, 1, 1)
    assert figures["false_alarms"]["count"] == 3
    assert figures["false_alarms"]["per_hour"] == pytest.approx(360)
    assert figures["threshold_at_1_per_hour"] == pytest.approx(0.881, abs=0.001)
    assert figures["recall_at_1_per_hour"]["found"] == figures["mean_recall"] == 0
    assert rare_events.figures_of_test(always(-2.0), EXTRACTOR, "beep", scenes)["false_alarms"]["count"] == 0


# ---- the command -----------------------------------------------------------------------------------------------------


def trial(label: str, seed: int, recall: float, phase: int = 1) -> dict:
    test = {"recall": {"value": recall}, "recall_at_1_per_hour": {"value": recall / 2, "sentence": f"{recall}!"},
            "mean_recall": 0.7, "false_alarms": {"per_hour": 2.0}}  # fmt: skip
    f1 = {"event": {"macro": 0.5}, "segment": {"macro": 0.7}}
    alarms = {"background": {"per_hour": 1.0}, "noise": {"per_hour": 0.0}}
    return {"label": label, "num_clips": 5, "seed": seed, "phase": {"number": phase}, "test": test, "cpu_minutes": 3.0,
            "old_classes": {"before": f1, "change": f1}, "cross_validated": {"false_alarms": alarms}}  # fmt: skip


def test_the_table_has_mean_and_deviation_over_seeds():
    lines = rare_events.table([trial("beep", 0, 0.4), trial("beep", 1, 0.6, phase=2), trial("rain", 0, 0.8)]).split(
        "\n"
    )
    assert lines[2].startswith("| beep | 5 | 2 | 1 | 0.250 ± 0.071 | 0.700 ± 0.000 | 0.500 ± 0.141 | 2.000 ± 0.000 |")
    assert lines[3].startswith("| rain | 5 | 1 | 0 | 0.400 | 0.700 | 0.800 | 2.000 |")
    assert lines[4].startswith("| all | 5 | 3 | 1 | 0.300 ± 0.100 | 0.700 ± 0.000 | 0.600 ± 0.200 |")
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[-1] == "- rain, 5 clips, seed 0, phase 1: at 1 false alarm per hour 0.8!"


def test_a_class_without_trials_of_some_number_of_clips_has_no_such_row():
    lines = rare_events.table([trial("beep", 0, 0.4) | {"num_clips": 20}, trial("rain", 0, 0.8)]).split("\n")
    assert [line.split(" | ")[:2] for line in lines[2:6]] == [
        ["| beep", "20"],
        ["| rain", "5"],
        ["| all", "5"],
        ["| all", "20"],
    ]


def test_a_base_that_heard_the_class(data, tmp_path, capsys):
    base = tmp_path / "base"
    tiny_model().save_pretrained(base)
    EXTRACTOR.save_pretrained(base)
    options = ["--base", f"rain={base}", "--data", str(data), "--out", str(tmp_path / "out.json")]
    assert rare_events.main(options) == 2
    assert "must never have heard rain, but knows it" in capsys.readouterr().err


def test_bases_are_named_with_their_class():
    assert rare_events.base_of("beep=runs/a=b/model") == ("beep", "runs/a=b/model")
    with pytest.raises(argparse.ArgumentTypeError, match="must be CLASS=PATH, got 'beep'"):
        rare_events.base_of("beep")


def test_an_event_knows_its_clip(data):
    sources = rare_events.event_sources(data / "soundscapes" / "test.tsv")
    assert sources == {("a.wav", 1.0, "beep"): "beep9.wav", ("a.wav", 4.0, "rain"): "rain9.wav"}
