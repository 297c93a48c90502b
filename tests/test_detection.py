"""Detections as data: JSON, rows, DataFrame."""

import json

import numpy as np
import pytest

from modeling_easysed import Detection, Event
from modeling_easysed.detection_easysed import NO_CALIBRATION, ROW_COLUMNS

EVENT_KEYS = [
    "onset",
    "offset",
    "label",
    "score",
    "confidence",
    "confidence_low",
    "confidence_high",
    "onset_low",
    "onset_high",
    "offset_low",
    "offset_high",
    "uncertainty",
    "decision",
    "reasons",
    "exit",
    "unfamiliarity",
]


def make_detection(events: list[Event] | None = None, num_classes: int = 3, num_frames: int = 126) -> Detection:
    if events is None:
        events = [Event(0.5, 1.25, "dog_bark", 0.91, exit=2), Event(2.0, 5.0, "rain $1", 0.6, exit=2)]
    generator = np.random.default_rng(0)
    return Detection(
        events=events,
        frame_times=np.arange(num_frames) * 0.04,
        probabilities=generator.random((num_frames, num_classes), dtype=np.float32),
        labels=["dog_bark", "rain $1", *(f"class_{number}" for number in range(2, num_classes))],
        duration=5.0,
        sampling_rate=44100,
        file="yard.wav",
        warnings=[NO_CALIBRATION],
        receipt={"model": "tiny", "seed": 0},
        log_mel=generator.normal(-40, 10, (501, 32)).astype(np.float32),
    )


def test_json_holds_the_contract():
    found = json.loads(make_detection().to_json())
    assert list(found) == ["file", "duration", "sampling_rate", "events", "warnings", "receipt", "decision_rule"]
    assert [list(event) for event in found["events"]] == [EVENT_KEYS] * 2
    first = found["events"][0]
    assert (first["onset"], first["offset"], first["label"], first["score"]) == (0.5, 1.25, "dog_bark", 0.91)
    unknown = [key for key in EVENT_KEYS if key not in ("onset", "offset", "label", "score", "exit")]
    assert all(first[key] is None for key in unknown)
    assert "no calibration" in found["warnings"][0]


def test_json_on_one_line_and_of_numpy_numbers():
    detection = make_detection([Event(np.float32(0.1), np.float64(0.2), "dog_bark", np.float32(0.3), exit=np.int64(1))])
    line = detection.to_json(indent=None)
    assert "\n" not in line
    assert json.loads(line)["events"][0]["onset"] == pytest.approx(0.1, abs=1e-6)


def test_rounding_never_moves_an_offset_past_the_file():
    duration = 4.9999995001
    detection = make_detection([Event(0.0, duration, "dog_bark", 0.5)])
    detection.duration = duration
    found = detection.to_dict()
    assert found["events"][0]["offset"] <= found["duration"]


def test_rows_flatten_uncertainty_and_reasons():
    uncertainty = {"total": 0.21, "aleatoric": 0.17, "epistemic": 0.04}
    event = Event(0.5, 1.0, "rain $1", 0.7, uncertainty=uncertainty, decision="review", reasons=["short", "faint"])
    (row,) = make_detection([event]).to_rows()
    assert tuple(row) == ROW_COLUMNS
    assert row["file"] == "yard.wav" and row["reasons"] == "short; faint" and row["decision"] == "review"
    assert [row[f"uncertainty_{part}"] for part in uncertainty] == [0.21, 0.17, 0.04]


def test_dataframe_has_the_same_columns_with_and_without_events():
    pytest.importorskip("pandas")
    frame = make_detection().to_dataframe()
    assert tuple(frame.columns) == ROW_COLUMNS and frame["label"].tolist() == ["dog_bark", "rain $1"]
    empty = make_detection([]).to_dataframe()
    assert tuple(empty.columns) == ROW_COLUMNS and len(empty) == 0


def test_repr_is_short():
    events = [Event(number / 10, number / 10 + 0.05, "dog_bark", 0.5) for number in range(40)]
    shown = repr(make_detection(events))
    assert "dog_bark 0.00-0.05 s" in shown and "40 in all" in shown and len(shown) < 500
