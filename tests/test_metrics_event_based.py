"""Collar-based scores on cases small enough to count by hand."""

import numpy as np
import pytest

from modeling_easysed.metrics import event_based_metrics

CLASSES = ["dog", "cat"]


def test_counts_by_hand():
    references = {"a": [[1.0, 2.0, "dog"], [4.0, 5.0, "dog"], [6.0, 7.0, "cat"]], "b": []}
    detections = {"a": [[1.1, 2.1, "dog"], [4.0, 5.0, "cat"], [8.0, 9.0, "cat"]], "b": [[0.0, 1.0, "dog"]]}
    scores = event_based_metrics(references, detections, CLASSES)
    # dog: 1 of 2 references, 1 of 2 detections -> F1 2/4; cat: 0 of 1 and 0 of 2 -> 0
    assert scores["class_wise"]["dog"] == {
        "f1": 0.5,
        "precision": 0.5,
        "recall": 0.5,
        "error_rate": 1.0,
        "tp": 1,
        "fp": 1,
        "fn": 1,
    }
    # cat: 1 miss and 2 insertions over 1 reference
    assert scores["class_wise"]["cat"]["error_rate"] == 3.0
    assert scores["macro"] == {"f1": 0.25, "precision": 0.25, "recall": 0.25, "error_rate": 2.0}
    # micro: TP 1, 3 references, 4 detections; dog at 4..5 called cat is 1 substitution, 1 deletion, 2 insertions
    micro = scores["micro"]
    assert micro["f1"] == pytest.approx(2 / 7)
    assert (micro["substitutions"], micro["deletions"], micro["insertions"]) == (1, 1, 2)
    assert micro["error_rate"] == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("onset", "offset", "matches"),
    [
        (2.2, 12.0, True),  # 0.20000000000000018 in float64
        (2.201, 12.0, False),
        (2.0, 14.0, True),  # 20 % of 10 s
        (2.0, 14.001, False),
    ],
)
def test_collars(onset, offset, matches):
    scores = event_based_metrics({"a": [[2.0, 12.0, "dog"]]}, {"a": [[onset, offset, "dog"]]}, ["dog"])
    assert scores["micro"]["tp"] == int(matches)


def test_collars_can_be_changed():
    events = {"a": [[2.0, 12.0, "dog"]]}, {"a": [[2.4, 13.0, "dog"]]}
    assert event_based_metrics(*events, ["dog"], onset_collar_s=0.4)["micro"]["f1"] == 1.0
    assert event_based_metrics(*events, ["dog"], onset_collar_s=0.4, offset_collar_rate=0.05)["micro"]["f1"] == 0.0
    exact = {"offset_collar_rate": 0.0, "offset_collar_s": 1.0, "onset_collar_s": 0.4}
    assert event_based_metrics(*events, ["dog"], **exact)["micro"]["f1"] == 1.0


def test_one_detection_serves_one_reference():
    references = {"a": [[1.0, 2.0, "dog"], [1.1, 2.1, "dog"]]}
    scores = event_based_metrics(references, {"a": [[1.0, 2.0, "dog"]]}, ["dog"])
    assert (scores["micro"]["tp"], scores["micro"]["fn"]) == (1, 1)


def test_durations_clip_the_detection():
    events = {"a": [[7.0, 10.0, "dog"]]}, {"a": [[7.0, 12.5, "dog"]]}
    assert event_based_metrics(*events, ["dog"])["micro"]["f1"] == 0.0
    assert event_based_metrics(*events, ["dog"], durations={"a": 10.0})["micro"]["f1"] == 1.0


def test_no_reference_at_all_is_nan():
    with pytest.warns(UserWarning, match="references hold no event at all"):
        scores = event_based_metrics({"a": []}, {"a": [[1.0, 2.0, "dog"]]}, CLASSES)
    for group in (scores["micro"], scores["macro"], scores["class_wise"]["dog"]):
        assert np.isnan([group[name] for name in ("f1", "precision", "recall", "error_rate")]).all()
    assert scores["micro"]["fp"] == 1


@pytest.mark.parametrize("name", ["onset_collar_s", "offset_collar_s", "offset_collar_rate"])
def test_negative_collar_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 0, got -0.1"):
        event_based_metrics({"a": []}, {"a": []}, CLASSES, **{name: -0.1})
