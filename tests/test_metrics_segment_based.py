"""Segment-based scores on cases small enough to count by hand."""

import pytest

from modeling_easysed.metrics import segment_based_metrics

CLASSES = ["dog", "cat"]


def test_counts_by_hand():
    references = {"a": [[0.5, 2.5, "dog"], [3.0, 4.0, "cat"]]}
    detections = {"a": [[1.0, 3.5, "dog"], [0.2, 0.4, "cat"]]}
    scores = segment_based_metrics(references, detections, CLASSES, {"a": 4.0})
    # active segments: reference dog 0 1 2, cat 3; detection dog 1 2 3, cat 0
    assert scores["class_wise"]["dog"]["f1"] == pytest.approx(2 / 3)
    assert scores["class_wise"]["cat"]["f1"] == 0.0
    assert scores["macro"]["f1"] == pytest.approx(1 / 3)
    micro = scores["micro"]
    assert (micro["tp"], micro["fp"], micro["fn"]) == (2, 2, 2)
    # segments 0 and 3 each have one reference and one detection of another class: two substitutions
    assert (micro["substitutions"], micro["deletions"], micro["insertions"]) == (2, 0, 0)
    assert micro["error_rate"] == 0.5


def test_deletions_and_insertions_are_per_segment():
    references = {"a": [[0.0, 1.0, "dog"], [0.0, 1.0, "cat"]]}
    scores = segment_based_metrics(references, {"a": [[1.0, 2.0, "dog"]]}, CLASSES, {"a": 2.0})
    micro = scores["micro"]
    assert (micro["substitutions"], micro["deletions"], micro["insertions"]) == (0, 2, 1)
    assert micro["error_rate"] == 1.5


@pytest.mark.parametrize("segment_s", [0.4, 0.1, 1 / 3, 1 / 7])
def test_an_event_that_ends_on_a_border_does_not_touch_the_next_segment(segment_s):
    # 1/3 s and 1/7 s are no whole numbers of microseconds; 2/3 s is rounded up, 2/7 s down
    border = 2 * segment_s
    references, detections = {"a": [[0.0, border, "dog"]]}, {"a": [[border, 3 * segment_s, "dog"]]}
    scores = segment_based_metrics(references, detections, ["dog"], {"a": 3 * segment_s}, segment_s=segment_s)
    assert (scores["micro"]["fn"], scores["micro"]["tp"], scores["micro"]["fp"]) == (2, 0, 1)


def test_the_last_segment_may_be_partial():
    events = {"a": [[4.1, 4.3, "dog"]]}
    scores = segment_based_metrics(events, events, ["dog"], {"a": 4.3})
    assert scores["micro"]["tp"] == 1


def test_files_do_not_touch():
    references = {"a": [[0.0, 2.0, "dog"]], "b": [[0.0, 1.0, "dog"]]}
    detections = {"a": [[0.0, 2.7, "dog"]], "b": []}
    scores = segment_based_metrics(references, detections, ["dog"], {"a": 2.0, "b": 2.0})
    assert (scores["micro"]["tp"], scores["micro"]["fp"], scores["micro"]["fn"]) == (2, 0, 1)


@pytest.mark.parametrize("segment_s", [0.0, -1.0, float("nan")])
def test_segment_length_is_refused(segment_s):
    with pytest.raises(ValueError, match="segment_s must be a positive number of seconds"):
        segment_based_metrics({"a": []}, {"a": []}, CLASSES, {"a": 1.0}, segment_s=segment_s)
