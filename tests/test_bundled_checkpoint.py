"""The checkpoint that ships in the wheel, on recordings that it never saw (fold 5)."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from evaluate import evaluate_split
from event_truth import judge_boxes
from soundscape_split import read_split

from modeling_easysed import BUNDLED_CHECKPOINTS, DEFAULT_CHECKPOINT, EventStream, SoundEventDetectionPipeline
from modeling_easysed.audio_easysed import read_audio
from modeling_easysed.cli.main import main as easysed
from modeling_easysed.decoding_easysed import Box
from modeling_easysed.draws_easysed import normal_nodes

WEIGHTS_LIMIT_BYTES = 16e6


@pytest.fixture(scope="module")
def pipe() -> SoundEventDetectionPipeline:
    return SoundEventDetectionPipeline.from_pretrained(DEFAULT_CHECKPOINT)


def clips_of_fold(data_dir: Path, fold: str) -> list[dict[str, str]]:
    with (data_dir / "esc10" / "metadata.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["fold"] == fold]


@pytest.mark.parametrize("name", ["easysed-cnn", "easysed-transformer"])
def test_config_says_where_the_weights_come_from(name):
    folder = Path(BUNDLED_CHECKPOINTS[name])
    config = json.loads((folder / "config.json").read_text())
    assert config["provenance"]["folds"] == ["1", "2", "3"]
    assert {"command", "seed", "steps", "excluded_licenses"} <= set(config["provenance"])
    assert config["decoding"]["tuned_on"]["split"] == "validation"
    assert "custom_pipelines" not in config
    names = {path.name for path in folder.iterdir()}
    beside = {"README.md", "attribution.csv", "reliability.png", "graphs"}
    assert names == {*beside, "config.json", "model.safetensors", "preprocessor_config.json"}
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


@pytest.mark.parametrize(
    ("name", "event_f1", "segment_f1"), [("easysed-cnn", 0.61, 0.845), ("easysed-transformer", 0.54, 0.80)]
)
def test_floors_on_the_test_soundscapes(data_dir, name, event_f1, segment_f1):
    results = evaluate_split(name, str(data_dir / "soundscapes"), "test", "all")
    deepest = results["exits"][list(results["exits"])[-1]]
    assert results["num_files"] == 200
    assert deepest["event_based"]["macro"]["f1"] >= event_f1
    assert deepest["segment_based"]["micro"]["f1"] >= segment_f1


def moves_under(pipe: SoundEventDetectionPipeline, paths: list[Path], change, shift_s: float, **settings) -> np.ndarray:
    """Seconds that the worse border of every event moves when `change(samples)` shifts the recording; infinite if lost.

    Events count that are more likely right than wrong and lie farther from the start than the network hears.
    """
    context_s = pipe.model.config.context_s
    moves = []
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        whole = pipe({"array": samples, "sampling_rate": rate}, exit=pipe.model.num_exits, **settings)
        moved = pipe({"array": change(samples), "sampling_rate": rate}, exit=pipe.model.num_exits, **settings).events
        for event in whole.events:
            if event.confidence > 0.5 and event.onset > context_s + abs(shift_s):
                distances = [
                    max(abs(other.onset - shift_s - event.onset), abs(other.offset - shift_s - event.offset))
                    for other in moved
                    if other.label == event.label
                ]
                moves.append(min(distances, default=np.inf))
    return np.array(moves)


PLAIN = {"uncertainty": "none", "shifts": 0}


@pytest.mark.parametrize("settings", [PLAIN, {}])
def test_a_cut_at_a_whole_frame_changes_no_probability_and_hardly_an_event(pipe, data_dir, settings):
    """Beyond what the network hears, probabilities stay to the last bits; joining boxes may look farther back."""
    paths = sorted((data_dir / "soundscapes" / "audio" / "test").glob("*.ogg"))[:30]
    moves = moves_under(pipe, paths, lambda samples: samples[round(0.72 * 16000) :], -0.72, **settings)
    assert len(moves) > 25
    assert (moves < 1e-6).mean() >= 0.95
    samples, rate = soundfile.read(paths[0], dtype="float32")
    sources = ({"array": part, "sampling_rate": rate} for part in (samples, samples[round(0.72 * rate) :]))
    whole, cut = (pipe(source, exit=pipe.model.num_exits, **settings) for source in sources)
    step_s = whole.frame_times[1]
    first = round((0.72 + pipe.model.config.context_s) / step_s)
    np.testing.assert_allclose(
        whole.probabilities[first:], cut.probabilities[first - round(0.72 / step_s) :], atol=1e-6
    )


@pytest.mark.parametrize(("shift_s", "fill"), [(0.03, "zeros"), (-0.73, "cut")])
def test_events_follow_the_recording(pipe, data_dir, shift_s, fill):
    """Moved by any multiple of 10 ms, events move by just as much: four grids interleave.

    Their confidence is measured on the grid of the plain view and may change: a few cross the line to being reported.
    """
    paths = sorted((data_dir / "soundscapes" / "audio" / "test").glob("*.ogg"))[:30]
    num = round(abs(shift_s) * 16000)

    def change(samples: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(num, np.float32), samples]) if fill == "zeros" else samples[num:]

    moves = moves_under(pipe, paths, change, shift_s)
    assert len(moves) > 25
    assert (moves < 1e-6).mean() >= 0.9
    assert (moves <= 0.2).mean() >= 0.95  # the collar of event-based F1


def test_a_cut_between_the_frames_moves_hardly_an_event(pipe, data_dir):
    paths = sorted((data_dir / "soundscapes" / "audio" / "test").glob("*.ogg"))[:30]
    moves = moves_under(pipe, paths, lambda samples: samples[round(0.745 * 16000) :], -0.745)
    assert np.median(moves) <= 0.0151  # one and a half steps of the line
    assert (moves <= 0.2).mean() >= 0.9


def test_a_stream_gives_the_events_of_the_recording(pipe, data_dir):
    paths = sorted((data_dir / "soundscapes" / "audio" / "test").glob("*.ogg"))[:8]
    samples = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in paths])
    offline = pipe({"array": samples, "sampling_rate": 16000}, exit=pipe.model.num_exits).events
    rng, stream, found, start = np.random.default_rng(0), EventStream(pipe, 16000), [], 0
    while start < len(samples):
        size = int(rng.integers(160, 32000))  # 10 ms to 2 s
        found += stream.push(samples[start : start + size])
        start += size
    found = sorted(found + stream.close(), key=lambda event: (event.onset, event.offset, event.label))
    assert len(offline) > 12 and [event.label for event in found] == [event.label for event in offline]
    for own, other in zip(found, offline, strict=True):
        assert (own.onset, own.offset) == pytest.approx((other.onset, other.offset), abs=0.1)
        assert own.confidence == pytest.approx(other.confidence, abs=1e-3)
        assert own.decision == other.decision


# ---- trust -----------------------------------------------------------------------------------------------------------


def test_every_event_is_judged(pipe, data_dir, capsys):
    path = data_dir / "soundscapes" / "audio" / "test" / "test_0001.ogg"
    assert easysed(["detect", str(path), "--format", "json"]) == 0
    detection = json.loads(capsys.readouterr().out)
    assert detection["duration"] == pytest.approx(10.0) and detection["events"]
    assert detection["receipt"]["calibration"] == pipe.calibration.id
    is_guaranteed = any("guaranteed with probability" in sentence for sentence in detection["decision_rule"])
    assert is_guaranteed != any("cannot be guaranteed" in warning for warning in detection["warnings"])
    for event in detection["events"]:
        assert 0 <= event["onset_low"] <= event["onset"] <= event["onset_high"]
        assert event["offset_low"] <= event["offset"] <= event["offset_high"] <= 10.0
        assert 0 <= event["confidence_low"] <= event["confidence"] <= event["confidence_high"] <= 1
        assert event["decision"] in ("accept", "review", "reject")
        assert event["decision"] == "accept" or event["reasons"]
        assert event["uncertainty"]["total"] == pytest.approx(
            event["uncertainty"]["aleatoric"] + event["uncertainty"]["epistemic"], abs=2e-6
        )


def test_the_calibration_never_saw_the_test_split(pipe):
    fitted_on = pipe.calibration.saved["fitted_on"]
    assert (fitted_on["data"], fitted_on["split"]) == ("soundscapes", "validation")
    assert fitted_on["num_recordings"] == 150 and sum(fitted_on["num_events"].values()) == 341
    assert fitted_on["outside"] == "outside/validation"


def test_accepted_events_are_right(pipe, data_dir):
    """Sixty test soundscapes: at least 90 % less two standard errors of the accepted events are right."""
    references, _, paths = read_split(data_dir / "soundscapes", "test")
    accepted = []
    for name in list(paths)[:60]:
        events = [event for event in pipe(str(paths[name]), min_precision=0.9).events if event.decision == "accept"]
        boxes = [Box(event.onset, event.offset, pipe.model.config.label2id[event.label], 1.0) for event in events]
        accepted += [one.right for one in judge_boxes(boxes, references[name], pipe.calibration.labels)]
    assert len(accepted) >= 25
    assert np.mean(accepted) >= 0.9 - 2 * np.sqrt(0.9 * 0.1 / len(accepted))


def test_same_receipt_same_events_on_one_or_two_threads(pipe, data_dir):
    paths = [str(path) for path in sorted((data_dir / "soundscapes" / "audio" / "test").glob("*.ogg"))[:4]]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = [pipe(path, seed=3).to_dict() for path in paths]
        torch.set_num_threads(2)
        two = [found.to_dict() for found in pipe(paths, seed=3)]
    finally:
        torch.set_num_threads(threads)
    for first, second in zip(one, two, strict=True):
        assert first["receipt"] == second["receipt"]
        assert [event["decision"] for event in first["events"]] == [event["decision"] for event in second["events"]]
        for event, other in zip(first["events"], second["events"], strict=True):
            assert event["onset"] == other["onset"] and event["offset"] == other["offset"]
            assert event["confidence"] == pytest.approx(other["confidence"], abs=1e-4)


def test_moments_agree_with_ten_thousand_passes(pipe, data_dir):
    clip = read_audio(data_dir / "soundscapes" / "audio" / "test" / "test_0003.ogg", 16000)
    features = pipe.feature_extractor(clip.samples, sampling_rate=16000)["input_values"]
    closed = pipe.model.moments(features)
    nodes, weights = normal_nodes(7)
    expected = torch.zeros_like(closed.frame_logits)
    for node, weight in zip(nodes, weights, strict=True):
        expected += float(weight) * torch.sigmoid(closed.frame_logits + float(node) * closed.frame_variances.sqrt())
    mean = torch.zeros_like(expected)
    for seed in range(20):
        mean += torch.sigmoid(pipe.model.monte_carlo(features, passes=500, seed=seed).frame_logits).mean(0) / 20
    assert (mean - expected).abs().max() < 0.01


def test_silence_and_hiss_are_never_accepted(pipe):
    rng = np.random.default_rng(0)
    for level in (0.0, 1e-4, 1e-2):
        samples = (level * rng.standard_normal(160000)).astype(np.float32)
        found = pipe({"array": samples, "sampling_rate": 16000})
        assert all(event.decision != "accept" for event in found.events)


def test_every_student_works_on_its_own(pipe, data_dir, tmp_path):
    path = str(data_dir / "esc10" / clips_of_fold(data_dir, "5")[0]["file_name"])
    for index in range(1, pipe.model.num_exits + 1):
        folder = tmp_path / str(index)
        pipe.model.student(index).save_pretrained(folder)
        pipe.feature_extractor.save_pretrained(folder)
        own = SoundEventDetectionPipeline.from_pretrained(folder)(path, exit=index)
        exit_of_teacher = pipe(path, exit=index)
        np.testing.assert_allclose(own.probabilities, exit_of_teacher.probabilities, atol=1e-6)
        assert [event.to_dict() for event in own.events] == [event.to_dict() for event in exit_of_teacher.events]
