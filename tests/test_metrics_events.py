"""Reading and checking of event lists, and the import of the package."""

import subprocess
import sys
import warnings

import pytest

from modeling_easysed.metrics import event_based_metrics, intersection_f1, psds_from_boxes, segment_based_metrics
from modeling_easysed.metrics.events import check_evaluation_set, read_events

CLASSES = ["dog", "cat"]
GOOD = {"a": [[1.0, 3.0, "dog"]]}


def table_of(rows, duration=None, scored=False):
    durations = None if duration is None else {"a": duration}
    evaluation_set = check_evaluation_set({"a": rows}, {"a": rows}, "detections", CLASSES, durations)
    return read_events({"a": rows}, "references", evaluation_set, scored)


def test_metrics_need_neither_torch_nor_scipy():
    code = "import sys, modeling_easysed.metrics; sys.exit(any(name in sys.modules for name in ('torch', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 3.0]], r"references\['a'\] must hold rows of \[onset, offset, label\]"),
        ([[1.0, 3.0, "dog", 0.5]], r"must hold rows of \[onset, offset, label\]"),
        ([{"onset": 1.0, "offset": 3.0, "label": "dog"}], r"must hold rows of \[onset, offset, label\]"),
        ([[1.0, 3.0, "bird"]], "unlisted class 'bird'"),
        ([["soon", 3.0, "dog"]], "must hold times and scores as numbers"),
        ([[None, 3.0, "dog"]], "must hold times and scores as numbers"),
        ([[float("nan"), 3.0, "dog"]], "must hold finite times"),
        ([[1.0, float("inf"), "dog"]], "must hold finite times"),
        ([[3.0, 1.0, "dog"]], r"must have offset >= onset, got \[3.0, 1.0, 'dog'\]"),
    ],
)
def test_row_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        table_of(rows)


def test_scored_row_needs_a_score():
    with pytest.raises(ValueError, match=r"must hold rows of \[onset, offset, label, score\]"):
        table_of([[1.0, 3.0, "dog"]], scored=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOOD, GOOD, "detections", []), "classes must be a list with at least one class name"),
        ((GOOD, GOOD, "detections", "dog"), "classes must be a list with at least one class name"),
        ((GOOD, GOOD, "detections", ["dog", "dog"]), r"classes must not repeat a name, got \['dog'\]"),
        (({}, {}, "detections", CLASSES), "references must name at least one file"),
        ((GOOD, {}, "detections", CLASSES), r"1 files without detections \['a'\]"),
        ((GOOD, GOOD | {"b": []}, "detections", CLASSES), r"1 without references \['b'\]"),
        ((GOOD, GOOD, "detections", CLASSES, {}), "1 files without durations"),
        ((GOOD, GOOD, "detections", CLASSES, {"a": 0.0}), r"durations\['a'\] must be a positive number"),
        ((GOOD, GOOD, "detections", CLASSES, {"a": float("nan")}), r"durations\['a'\] must be a positive number"),
    ],
)
def test_evaluation_set_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_evaluation_set(*arguments)


def test_times_become_whole_microseconds():
    table = table_of([[2.2, 5.0, "cat"]])
    assert (table.onset[0], table.offset[0], table.label[0]) == (2_200_000, 5_000_000, 1)


def test_events_are_clipped_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = table_of([[-0.5, 2.0, "dog"], [7.0, 12.5, "dog"]], duration=10.0)
    assert table.onset.tolist() == [0, 7_000_000]
    assert table.offset.tolist() == [2_000_000, 10_000_000]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([4.4, 4.4, "dog"], r"dropped 1 event\(s\) of zero length, the first is \[4.4, 4.4, 'dog'\] in file 'a'"),
        ([11.0, 12.0, "dog"], r"dropped 1 event\(s\) wholly outside their file"),
        ([10.0, 12.0, "dog"], r"dropped 1 event\(s\) wholly outside their file"),
        ([-2.0, -1.0, "dog"], r"dropped 1 event\(s\) wholly outside their file"),
        ([1.0, 3.0, "dog"], r"dropped 1 event\(s\) given twice"),
    ],
)
def test_event_is_dropped_with_a_warning(row, message):
    with pytest.warns(UserWarning, match=message):
        table = table_of([[1.0, 3.0, "dog"], row], duration=10.0)
    assert len(table.onset) == 1


def test_equal_boxes_with_different_scores_are_not_repetitions():
    rows = [[1.0, 3.0, "dog", 0.5], [1.0, 3.0, "dog", 0.6]]
    assert len(table_of(rows, scored=True).onset) == 2
    with pytest.raises(ValueError, match="boxes of one class must not overlap"):
        psds_from_boxes(GOOD, {"a": rows}, CLASSES, {"a": 10.0}, 0.7, 0.7)


def test_overlap_is_accepted_by_collar_and_segment_metrics_only():
    references = {"a": [[1.0, 3.0, "dog"], [2.0, 4.0, "dog"]]}
    with pytest.warns(UserWarning, match=r"\['cat'\]"):
        assert event_based_metrics(references, references, CLASSES)["micro"]["f1"] == 1.0
    with pytest.warns(UserWarning, match=r"\['cat'\]"):
        assert segment_based_metrics(references, references, CLASSES, {"a": 10.0})["micro"]["f1"] == 1.0
    message = r"references of one class must not overlap .* \[1, 3, 'dog'\] in file 'a' and \[2, 4, 'dog'\] in file 'a'"
    with pytest.raises(ValueError, match=message):
        intersection_f1(references, references, CLASSES)


def test_overlap_of_different_classes_or_files_is_accepted():
    references = {"a": [[1.0, 3.0, "dog"], [2.0, 4.0, "cat"]], "b": [[0.0, 4.0, "dog"]]}
    assert intersection_f1(references, references, CLASSES)["macro"]["f1"] == 1.0
