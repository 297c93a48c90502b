"""The checkpoint that ships in the wheel, on recordings that it never saw (fold 5)."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluate import evaluate_split

from modeling_easysed import BUNDLED_CHECKPOINTS, DEFAULT_CHECKPOINT, SoundEventDetectionPipeline
from modeling_easysed.cli.main import main as easysed

WEIGHTS_LIMIT_BYTES = 16e6


@pytest.fixture(scope="module")
def pipe() -> SoundEventDetectionPipeline:
    return SoundEventDetectionPipeline.from_pretrained(DEFAULT_CHECKPOINT)


def clips_of_fold(data_dir: Path, fold: str) -> list[dict[str, str]]:
    with (data_dir / "esc10" / "metadata.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["fold"] == fold]


def test_config_says_where_the_weights_come_from():
    folder = Path(BUNDLED_CHECKPOINTS[DEFAULT_CHECKPOINT])
    config = json.loads((folder / "config.json").read_text())
    assert config["provenance"]["folds"] == ["1", "2", "3"]
    assert {"command", "seed", "steps", "excluded_licenses"} <= set(config["provenance"])
    assert config["decoding"]["tuned_on"]["split"] == "validation"
    assert "custom_pipelines" not in config
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    sizes = [path.stat().st_size for path in folder.parent.rglob("*.safetensors")]
    assert sum(sizes) <= WEIGHTS_LIMIT_BYTES


def test_most_clips_of_fold_5_get_their_own_label(pipe, data_dir):
    """Four clips of every class: the longest detected class is the clip's in most of them."""
    rows = clips_of_fold(data_dir, "5")
    chosen = [
        row for label in sorted({r["label"] for r in rows}) for row in [r for r in rows if r["label"] == label][:4]
    ]
    right = 0
    for row in chosen:
        lengths: dict[str, float] = {}
        for event in pipe(str(data_dir / "esc10" / row["file_name"])).events:
            lengths[event.label] = lengths.get(event.label, 0.0) + event.offset - event.onset
        right += max(lengths, key=lengths.get, default=None) == row["label"]
    assert right >= 0.75 * len(chosen)


def test_floors_on_the_test_soundscapes(data_dir):
    results = evaluate_split(DEFAULT_CHECKPOINT, str(data_dir / "soundscapes"), "test", "all")
    deepest = results["exits"][list(results["exits"])[-1]]
    assert results["num_files"] == 200
    assert deepest["event_based"]["macro"]["f1"] >= 0.45
    assert deepest["segment_based"]["micro"]["f1"] >= 0.78


def moves_under_cut(pipe: SoundEventDetectionPipeline, paths: list[Path], cut_s: float) -> np.ndarray:
    """Seconds that every event's worse border moves when `cut_s` is cut off the start; infinite for a lost event."""
    moves = []
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        whole = pipe({"array": samples, "sampling_rate": rate}).events
        cut = pipe({"array": samples[round(cut_s * rate) :], "sampling_rate": rate}).events
        for event in (event for event in whole if event.onset > cut_s + pipe.model.config.context_s):
            same = [other for other in cut if other.label == event.label]
            distances = [
                max(abs(other.onset + cut_s - event.onset), abs(other.offset + cut_s - event.offset)) for other in same
            ]
            moves.append(min(distances, default=np.inf))
    return np.array(moves)


@pytest.mark.parametrize("cut_s", [0.72, 0.73, 0.745])
def test_an_event_keeps_its_time_when_the_file_is_cut_elsewhere(pipe, data_dir, cut_s):
    """Cut at a multiple of the frame nothing changes; elsewhere half of the events stay within one frame."""
    paths = sorted((data_dir / "soundscapes" / "audio" / "test").glob("*.ogg"))[:60]
    moves = moves_under_cut(pipe, paths, cut_s)
    assert len(moves) > 40
    frame_s = pipe.model.frame_duration_s
    if round(cut_s / frame_s, 6).is_integer():
        assert moves.max() < 1e-6
    else:
        assert np.median(moves) <= frame_s
        assert (moves <= 0.2).mean() >= 0.8  # within the collar of event-based F1


def test_detect_prints_the_events_of_a_soundscape(data_dir, capsys):
    path = data_dir / "soundscapes" / "audio" / "test" / "test_0001.ogg"
    assert easysed(["detect", str(path), "--format", "json"]) == 0
    detection = json.loads(capsys.readouterr().out)
    assert detection["duration"] == pytest.approx(10.0)
    assert detection["events"]
    assert all(event["confidence"] is None for event in detection["events"])
    assert any("no calibration" in warning for warning in detection["warnings"])
    assert all(0 <= event["onset"] < event["offset"] <= 10.0 for event in detection["events"])


def test_every_student_works_on_its_own(pipe, data_dir, tmp_path):
    path = str(data_dir / "esc10" / clips_of_fold(data_dir, "5")[0]["file_name"])
    for index in range(1, pipe.model.num_exits + 1):
        folder = tmp_path / str(index)
        pipe.model.student(index).save_pretrained(folder)
        pipe.feature_extractor.save_pretrained(folder)
        own, exit_of_teacher = SoundEventDetectionPipeline.from_pretrained(folder)(path), pipe(path, exit=index)
        np.testing.assert_allclose(own.probabilities, exit_of_teacher.probabilities, atol=1e-6)
        assert [event.to_dict() for event in own.events] == [event.to_dict() for event in exit_of_teacher.events]
