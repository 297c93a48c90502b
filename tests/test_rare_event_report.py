"""What the report advises, figure by figure."""

import pytest
from rare_event_report import markdown, next_steps
from rare_event_statistics import FalseAlarms, Recall


def alarms(count: int, hours: float) -> dict:
    own = FalseAlarms(count, hours)
    return {"count": count, "hours": hours, "per_hour": own.per_hour, "at_most_per_hour": own.upper,
            "sentence": own.sentence()}  # fmt: skip


def recall(found: int, total: int, recordings: int) -> dict:
    own = Recall(found, total, recordings)
    low, high = own.interval
    return {"value": own.value, "low": low, "high": high, "sentence": own.sentence()}


def make_report(**changes) -> dict:
    """All well: 19 of 20 recordings found, three hours without a false alarm."""
    f1 = {"event": {"macro": 0.5}, "segment": {"macro": 0.6}}
    values = {
        "label": "beep",
        "base": {"name": "easysed-cnn", "id": "sha256:0", "labels": ["rain"]},
        "data": {
            "num_clips": 20,
            "num_recordings": 20,
            "num_events": 22,
            "background_hours": 3.0,
            "old_data": None,
            "num_rehearsal_clips": 9,
            "skipped_files": 0,
        },  # fmt: skip
        "minutes": 2.0,
        "phase": {"number": 2, "sentence": "All weights were trained."},
        "skipped": [],
        "threshold": 0.5,
        "recall": recall(19, 20, 20),
        "recall_at_1_per_hour": recall(19, 20, 20),
        "trade_off": [{"per_hour": 1.0, "threshold": 0.5, **recall(19, 20, 20)}],
        "goal_false_alarms_per_hour": 1.0,
        "false_alarms": {"background": alarms(0, 3.0), "noise": alarms(0, 0.5)},
        "learning_curve": {"sizes": [4, 16], "recall": [0.5, 0.9], "sentence": "More would help."},
        "old_classes": {
            "agreement": {"frame_f1": 0.98, "active_frames": 900, "mean_difference": 0.01},
            "data": "field/dev",
            "num_files": 30,
            "before": f1,
            "after": f1,
            "change": {"event": {"macro": 0.0, "rain": -0.05}, "segment": {"macro": 0.0, "rain": 0.01}},
        },  # fmt: skip
        "calibration": {"sentence": "Calibrated."},
        "command": "accelerate launch training/finetune.py",
    }
    return {**values, **changes}


def test_where_all_is_well_one_should_listen():
    assert next_steps(make_report()) == [
        "Listen to what it finds in recordings of your own: `easysed detect RECORDINGS --model .../model`."
    ]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"recall": recall(3, 5, 5)}, "Do not rely on it alone yet"),
        ({"false_alarms": {"background": alarms(0, 0.5)}}, "0.5 h cannot prove at most 1 false alarms per hour, 2.3 h"),
        (
            {"false_alarms": {"background": alarms(0, 3.0), "noise": alarms(4, 0.5), "old_sounds": alarms(5, 0.5)}},
            "It mistakes old sounds and noise for beep",
        ),
    ],
)
def test_what_is_wrong_is_named_with_the_next_step(changes, words):
    assert words in "\n".join(next_steps(make_report(**changes)))


def test_all_weights_are_advised_where_nobody_could_tell():
    report = make_report(phase={"number": 1, "sentence": ""})
    assert not any("--rehearsal" in line for line in next_steps(report))
    report["data"] = {**report["data"], "num_rehearsal_clips": 0}
    assert any("Add --rehearsal or --old_data" in line for line in next_steps(report))


def test_the_page_says_everything_once():
    text = markdown(make_report(skipped=[["a.wav", "is silent"]]))
    once = [
        "20 clips of 20 recordings (22 events",
        "3.0 hours of background",
        "at the chosen threshold, 0.50: 19 of 20 found: recall 0.95",
        "0 in 3 h: at most 0.77 per hour",
        "More would help.",
        "0.50 with 4, 0.90 with 16",
        "| rain | -0.050 |",
        "event-based 0.500 before, 0.500 after",
        "Calibrated.",
        "Skipped, 1 in all: a.wav: is silent.",
    ]
    for words in once:
        assert text.count(words) == 1, words


def test_only_the_classes_that_changed_most_are_listed():
    change = {f"class{number:02d}": number / 100 for number in range(30)}
    old = {
        **make_report()["old_classes"],
        "change": {"event": {**change, "macro": 0}, "segment": {**change, "macro": 0}},
    }
    text = markdown(make_report(old_classes=old))
    assert text.count("| class") == 12 and "| class00 |" in text and "| class29 |" in text and "| class15 |" not in text
