"""The cases on which the field's packages disagree: every stored case against the convention of this package.

A result is expected to equal the package named in `PEER`; `POLICY` lists where the convention differs, and `WARNS`
which cases warn. Every other case must be silent.
"""

import warnings

import pytest
from metric_vectors import PSDS_SCENARIOS, close, load_vectors

from modeling_easysed.metrics import (
    event_based_metrics,
    intersection_f1,
    psds,
    psds_from_boxes,
    segment_based_metrics,
)

NAN = float("nan")

# result: path to the peer's value in `expected`; the boxes hold the detections of the case, all with one score
PEER = {
    "event_micro": ("sed_eval_event_zero_score", "micro", "f_measure"),
    "event_macro": ("sed_eval_event_zero_score", "macro", "f_measure"),
    "event_error": ("sed_eval_event_zero_score", "micro", "error_rate"),
    "segment_micro": ("sed_eval_segment_with_duration", "micro", "f_measure"),
    "segment_macro": ("sed_eval_segment_with_duration", "macro", "f_measure"),
    "segment_error": ("sed_eval_segment_with_duration", "micro", "error_rate"),
    "intersection": ("sed_scores_eval_intersection_f1_0.7_thr_0.5", "f_measure", "macro_average"),
    "psds1": ("sed_scores_eval_psds1", "value"),
    "psds2": ("sed_scores_eval_psds2", "value"),
    "boxes1": ("psds_eval_psds1_single_operating_point", "value"),
    "boxes2": ("psds_eval_psds2_single_operating_point", "value"),
}

EVENT = ("event_micro", "event_macro")
SEGMENT = ("segment_micro", "segment_macro")
ERRORS = ("event_error", "segment_error")
PSDS = ("psds1", "psds2")
BOXES = ("boxes1", "boxes2")
RIGHT = dict.fromkeys((*EVENT, *SEGMENT, "intersection", *PSDS, *BOXES), 1.0) | dict.fromkeys(ERRORS, 0.0)
NO_SCORES = dict.fromkeys(PSDS)
ALL_ZERO = dict.fromkeys(SEGMENT, 0.0)
REFUSED_EVERYWHERE = dict.fromkeys(PEER, ValueError)

POLICY = {
    # no output scores 0, not nan
    "no_predictions_at_all": ALL_ZERO,
    "constant_scores": ALL_ZERO,
    "inverted_scores": ALL_ZERO,
    # class without output: 0 for the class, not left out of macro
    "no_predictions_one_class": {"segment_macro": 0.5},
    "no_predictions_one_class_long": {"segment_macro": 0.5},
    # speech: 2 of 4 reported segments right, 2 of 2 references, 2 * 2 / (2 + 4) = 2/3; dog: 0
    "substitution": {"segment_macro": 1 / 3},
    "substitution_long": {"segment_macro": 1 / 3},
    # class without references: left out, so only the perfect dog remains
    "no_gt_one_class_no_pred": RIGHT,
    "no_gt_one_class_with_pred": {"intersection": 1.0} | dict.fromkeys((*PSDS, *BOXES), 1.0),
    # no references anywhere: nan, never a huge number
    "no_gt_at_all_with_pred": dict.fromkeys(PEER, NAN),
    "no_gt_no_pred_at_all": dict.fromkeys(PEER, NAN),
    # the scores of this case have no column for the unlisted class
    "unlisted_class_detection": REFUSED_EVERYWHERE | dict.fromkeys(PSDS, 1.0),
    "gt_touching_merged_detection": {"intersection": 1.0} | dict.fromkeys(PSDS, 1.0),
    "detections_touching": {"intersection": 1.0} | NO_SCORES,
    "duplicate_gt": RIGHT,
    "duplicate_detection": RIGHT | NO_SCORES,
    "duplicate_gt_and_detection": RIGHT | NO_SCORES,
    "overlapping_same_class_gt": dict.fromkeys(("intersection", *PSDS, *BOXES), ValueError),
    "overlapping_same_class_detection": dict.fromkeys(("intersection", *BOXES), ValueError) | NO_SCORES,
    "optimal_vs_greedy": dict.fromkeys(("intersection", *BOXES), ValueError) | NO_SCORES,
    "zero_length_gt": RIGHT,
    "zero_length_gt_mid_segment": RIGHT,
    "zero_length_detection": RIGHT | NO_SCORES,
    "negative_length_detection": REFUSED_EVERYWHERE | NO_SCORES,
    # clipped to the file
    "detection_beyond_file_end": RIGHT,
    "beyond_file_end_long": RIGHT,
    "gt_beyond_file_end": RIGHT,
    "negative_onset_detection": RIGHT | NO_SCORES,
    # dropped
    "detection_wholly_beyond_file_end": RIGHT,
    "wholly_beyond_file_end_long": RIGHT,
    # 2.2 - 2.0 is on the collar; 0.7 - 2e-16 meets a ratio of 0.7
    "collar_exact_float": RIGHT,
    "dtc_boundary_float_error": {"boxes1": 1.0},
    "gtc_boundary_float_error": {"boxes1": 1.0},
    "single_class_perfect": RIGHT,
}

WARNS = {
    "no_gt_one_class_no_pred": r"classes without any reference event .*\['speech'\]",
    "no_gt_one_class_with_pred": r"classes without any reference event .*\['speech'\]",
    "no_gt_at_all_with_pred": "references hold no event at all",
    "no_gt_no_pred_at_all": "references hold no event at all",
    "duplicate_gt": r"references: dropped 1 event\(s\) given twice",
    "duplicate_detection": r"dropped 1 event\(s\) given twice",
    "duplicate_gt_and_detection": r"dropped 1 event\(s\) given twice",
    "zero_length_gt": r"references: dropped 1 event\(s\) of zero length",
    "zero_length_gt_mid_segment": r"references: dropped 1 event\(s\) of zero length",
    "zero_length_detection": r"dropped 1 event\(s\) of zero length",
    "detection_wholly_beyond_file_end": "wholly outside their file",
    "wholly_beyond_file_end_long": "wholly outside their file",
    # its scores have a frame 10..12.5 s of a file of 10 s; the detection itself is clipped without a word
    "detection_beyond_file_end": "scores: dropped frames wholly outside their file",
    "beyond_file_end_long": "scores: dropped frames wholly outside their file",
}

CASES = [
    "perfect",
    "no_predictions_at_all",
    "no_predictions_one_class",
    "no_gt_one_class_no_pred",
    "no_gt_one_class_with_pred",
    "no_gt_at_all_with_pred",
    "no_gt_no_pred_at_all",
    "unlisted_class_detection",
    "empty_file_with_false_positive",
    "gt_touching_merged_detection",
    "detections_touching",
    "detection_split_with_gap",
    "one_detection_over_two_gt",
    "duplicate_gt",
    "duplicate_detection",
    "duplicate_gt_and_detection",
    "overlapping_same_class_gt",
    "overlapping_same_class_detection",
    "zero_length_gt",
    "zero_length_gt_mid_segment",
    "zero_length_detection",
    "negative_length_detection",
    "detection_beyond_file_end",
    "detection_wholly_beyond_file_end",
    "gt_beyond_file_end",
    "negative_onset_detection",
    "collar_exact_float",
    "collar_exact_float_ok",
    "offset_collar_20_percent",
    "substitution",
    "optimal_vs_greedy",
    "dtc_boundary",
    "gtc_boundary",
    "dtc_boundary_float_error",
    "gtc_boundary_float_error",
    "single_class_perfect",
    "cross_trigger_long",
    "substitution_long",
    "false_positive_long",
    "wholly_beyond_file_end_long",
    "beyond_file_end_long",
    "no_predictions_one_class_long",
    "split_three_of_which_one_outside_long",
    "cross_trigger",
    "segment_border_touch",
    "fractional_duration",
    "scores_equal_to_threshold",
    "constant_scores",
    "perfect_scores",
    "inverted_scores",
]


@pytest.fixture(scope="module")
def cases(data_dir):
    return {case["name"]: case for case in load_vectors(data_dir, "edge_cases")["cases"]}


def outcome(metric, *arguments, **options):
    """The result, or ValueError where the metric refuses its input."""
    try:
        return metric(*arguments, **options)
    except ValueError:
        return ValueError


def measure(case):
    """Our value for every result of PEER."""
    references, detections, classes = case["ground_truth"], case["detections"], case["classes"]
    durations = case["audio_durations"]
    boxes = {file: [[*row, 0.9] for row in rows] for file, rows in detections.items()}
    outcomes = {
        "event": outcome(event_based_metrics, references, detections, classes, durations=durations),
        "segment": outcome(segment_based_metrics, references, detections, classes, durations),
        "intersection": outcome(intersection_f1, references, detections, classes, 0.7, 0.7, durations),
    }
    values = {}
    paths = {"micro": ("micro", "f1"), "macro": ("macro", "f1"), "error": ("micro", "error_rate")}
    for result in PEER:
        kind, _, part = result.partition("_")
        if kind in outcomes:
            group, name = paths[part or "macro"]
            values[result] = outcomes[kind] if outcomes[kind] is ValueError else outcomes[kind][group][name]
    for scenario, options in PSDS_SCENARIOS.items():
        scored = {"boxes" + scenario[-1]: (psds_from_boxes, boxes)}
        if "scores" in case:
            scored[scenario] = (psds, case["scores"])
        for result, (metric, predictions) in scored.items():
            value = outcome(metric, references, predictions, classes, durations, **options)
            values[result] = value if value is ValueError else value["psds"]
    return values


def peer_value(case, path):
    value = case["expected"]
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize("name", CASES)
def test_edge_case(cases, name):
    case, policy = cases[name], POLICY.get(name, {})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = measure(case)
    for result, path in PEER.items():
        if result in policy and policy[result] is None:
            assert "scores" not in case
        elif policy.get(result) is ValueError:
            assert values[result] is ValueError, result
        else:
            expected = policy[result] if result in policy else peer_value(case, path)
            assert values[result] == close(expected), result
    messages = [str(warning.message) for warning in caught]
    if name not in WARNS:
        assert messages == []
    else:
        with pytest.warns(UserWarning, match=WARNS[name]):
            measure(case)


def test_every_stored_case_is_judged(cases):
    assert sorted(cases) == sorted(CASES)
    assert set(POLICY) <= set(CASES)
    assert set(WARNS) <= set(CASES)


def test_a_file_without_references_counts(cases):
    # cross-check of the policy: dropping the empty files, as the DESED baseline code does, would hide the false alarm
    case = cases["false_positive_long"]
    with_references = [file for file, rows in case["ground_truth"].items() if rows]
    kept = [{file: data[file] for file in with_references} for data in (case["ground_truth"], case["scores"])]
    durations = {file: case["audio_durations"][file] for file in with_references}
    assert psds(*kept, case["classes"], durations, **PSDS_SCENARIOS["psds1"])["psds"] == 1.0
    arguments = (case["ground_truth"], case["scores"], case["classes"], case["audio_durations"])
    assert psds(*arguments, **PSDS_SCENARIOS["psds1"])["psds"] < 1.0
