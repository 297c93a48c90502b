"""Intersection criteria and PSDS on cases small enough to compute by hand, and all thresholds against a loop."""

import numpy as np
import pytest

from modeling_easysed.metrics import intersection_f1, psds, psds_from_boxes
from modeling_easysed.metrics.events import check_evaluation_set
from modeling_easysed.metrics.frame_scores import detections_at_all_thresholds, read_scores

HOUR = {"a": 3600.0}
STRICT = {"dtc": 0.7, "gtc": 0.7}


def test_intersection_f1_by_hand():
    references = {"a": [[0.0, 10.0, "dog"], [20.0, 30.0, "dog"], [40.0, 50.0, "cat"]]}
    # dog 0..4 and 5..9 together cover 80 % of the first; 25..40 lies 1/3 on the second: a false positive
    detections = {"a": [[0.0, 4.0, "dog"], [5.0, 9.0, "dog"], [25.0, 40.0, "dog"]]}
    scores = intersection_f1(references, detections, ["dog", "cat"])
    dog = scores["class_wise"]["dog"]
    assert (dog["tp"], dog["fp"], dog["fn"], dog["f1"]) == (1, 1, 1, 0.5)
    # cat has no output and counts as 0
    assert scores["macro"]["f1"] == 0.25
    assert scores["micro"]["f1"] == pytest.approx(2 / (2 + 1 + 2))


def test_relevant_detection_of_a_missed_reference_is_no_false_positive():
    scores = intersection_f1({"a": [[0.0, 10.0, "dog"]]}, {"a": [[0.0, 4.0, "dog"]]}, ["dog"])
    assert (scores["micro"]["tp"], scores["micro"]["fp"], scores["micro"]["fn"]) == (0, 0, 1)


@pytest.mark.parametrize(("excess_s", "found"), [(0.000001, True), (0.00001, False)])
def test_ratios_are_rounded_to_six_decimals(excess_s, found):
    # 2.1 / 3.000001 = 0.69999977 counts as 0.7, 2.1 / 3.00001 = 0.69999767 does not
    short, long = {"a": [[0.0, 2.1, "dog"]]}, {"a": [[0.0, 3.0 + excess_s, "dog"]]}
    assert intersection_f1(short, long, ["dog"], dtc=0.7, gtc=0.7)["micro"]["f1"] == float(found)
    assert intersection_f1(long, short, ["dog"], dtc=0.7, gtc=0.7)["micro"]["f1"] == float(found)


def test_intersection_f1_clips_to_durations():
    events = {"a": [[8.0, 10.0, "dog"]]}, {"a": [[8.0, 20.0, "dog"]]}
    assert intersection_f1(*events, ["dog"])["micro"]["f1"] == 0.0
    assert intersection_f1(*events, ["dog"], durations={"a": 10.0})["micro"]["f1"] == 1.0


def test_psds_from_boxes_by_hand():
    references = {"a": [[0.0, 10.0, "dog"], [20.0, 30.0, "dog"]]}
    boxes = {"a": [[0.0, 10.0, "dog", 0.9], [50.0, 60.0, "dog", 0.8], [20.0, 30.0, "dog", 0.7]]}
    result = psds_from_boxes(references, boxes, ["dog"], HOUR, **STRICT, e_max=2.0)
    # thresholds down to 0.8 give TPR 1/2 at no false positive, below 0.7 TPR 1 at one per hour: (1/2 + 1) / 2
    assert result["psds"] == pytest.approx(0.75)
    assert result["psd_roc"] == {"efpr_per_hour": [0.0, 1.0, 2.0], "etpr": [0.5, 1.0, 1.0]}


def cross_trigger_case():
    # the false dog at 60..70 lies on half an hour of cat
    references = {"a": [[0.0, 10.0, "dog"], [20.0, 30.0, "dog"], [60.0, 1860.0, "cat"]]}
    boxes = [[0.0, 10.0, "dog", 0.9], [60.0, 70.0, "dog", 0.8], [20.0, 30.0, "dog", 0.7], [60.0, 1860.0, "cat", 0.9]]
    return references, {"a": boxes}, ["dog", "cat"], HOUR


def test_cross_triggers_and_spread_by_hand():
    options = STRICT | {"cttc": 0.3, "alpha_ct": 0.5, "e_max": 4.0}
    result = psds_from_boxes(*cross_trigger_case(), **options)
    # eFPR of dog at 0.8: 1 per hour + 0.5 * (1 cross-trigger / 0.5 h of cat) = 2; dog (2 * 1/2 + 2 * 1) / 4, cat 1
    assert result["class_wise"] == {"dog": pytest.approx(0.75), "cat": pytest.approx(1.0)}
    # up to 2: mean 0.75, spread 0.25 -> 0.5; then 1: (2 * 0.5 + 2 * 1) / 4
    assert result["psds"] == pytest.approx(0.75)
    # without the spread (2 * 0.75 + 2 * 1) / 4
    assert psds_from_boxes(*cross_trigger_case(), **options, alpha_st=0.0)["psds"] == pytest.approx(0.875)
    # 3 of 10 s on cat meet the cross-trigger limit of 0.3
    references, boxes, classes, durations = cross_trigger_case()
    boxes["a"][1] = [53.0, 63.0, "dog", 0.8]
    assert psds_from_boxes(references, boxes, classes, durations, **options)["psds"] == pytest.approx(0.75)
    # started 8 s earlier, only 10/18 of the false dog lies on cat
    references, boxes, classes, durations = cross_trigger_case()
    boxes["a"][1] = [52.0, 70.0, "dog", 0.8]
    partly = psds_from_boxes(references, boxes, classes, durations, **(options | {"cttc": 0.6}))
    # no cross-trigger any more: eFPR 1, dog (1 * 1/2 + 3 * 1) / 4
    assert partly["class_wise"]["dog"] == pytest.approx(0.875)


def test_a_score_equal_to_the_threshold_is_inactive():
    # frames 0.5 | 0.9 | 0.5: at the threshold 0.5 only the middle is active, and no threshold gives two frames
    scores = {"a": {"timestamps": [0.0, 10.0, 20.0, 30.0], "values": [[0.5], [0.9], [0.5]]}}
    assert psds({"a": [[10.0, 20.0, "dog"]]}, scores, ["dog"], HOUR, **STRICT)["psds"] == 1.0
    assert psds({"a": [[0.0, 20.0, "dog"]]}, scores, ["dog"], HOUR, **STRICT)["psds"] == 0.0


def test_boxes_do_not_move_with_the_threshold():
    # as frames, thresholds below 0.4 merge the two halves of the dog; as boxes they stay apart
    references = {"a": [[0.0, 30.0, "dog"]]}
    boxes = {"a": [[0.0, 10.0, "dog", 0.9], [20.0, 30.0, "dog", 0.9]]}
    scores = {"a": {"timestamps": [0.0, 10.0, 20.0, 30.0], "values": [[0.9], [0.4], [0.9]]}}
    assert psds(references, scores, ["dog"], HOUR, **STRICT)["psds"] == 1.0
    assert psds_from_boxes(references, boxes, ["dog"], HOUR, **STRICT)["psds"] == 0.0
    assert psds_from_boxes(references, boxes, ["dog"], HOUR, dtc=0.7, gtc=0.6)["psds"] == 1.0


def test_boxes_equal_the_same_boxes_drawn_as_frame_scores():
    rng = np.random.default_rng(4)
    references, boxes, scores, durations = {}, {}, {}, {}
    for file in map(str, range(12)):
        starts = np.arange(0.0, 60.0, 6.0)
        lengths, confidence = rng.uniform(1, 5, 10).round(3), rng.uniform(0.1, 1, 10).round(1)
        borders = np.stack([starts, starts + lengths], axis=1)
        boxes[file] = [[on, off, "dog", c] for (on, off), c in zip(borders.tolist(), confidence.tolist(), strict=True)]
        references[file] = [[on, on + 3.0, "dog"] for on in starts[rng.random(10) < 0.4].tolist()]
        values = np.stack([confidence, np.zeros(10)], axis=1).reshape(-1, 1)
        scores[file] = {"timestamps": np.append(borders.ravel(), 60.0), "values": values}
        durations[file] = 60.0
    from_boxes = psds_from_boxes(references, boxes, ["dog"], durations, **STRICT, e_max=300.0)
    from_scores = psds(references, scores, ["dog"], durations, **STRICT, e_max=300.0)
    assert 0 < from_boxes["psds"] < 1
    assert from_scores["psds"] == pytest.approx(from_boxes["psds"], abs=1e-12)


def runs_by_loop(timestamps, score, threshold):
    active = np.concatenate([[False], score > threshold, [False]])
    first, stop = np.flatnonzero(active[1:] & ~active[:-1]), np.flatnonzero(~active[1:] & active[:-1])
    return {(timestamps[i], timestamps[j]) for i, j in zip(first, stop, strict=True)}


@pytest.mark.parametrize("decimals", [1, 6])
def test_detections_at_all_thresholds_equal_thresholding(decimals):
    rng = np.random.default_rng(1)
    files = {
        file: {"timestamps": np.arange(num + 1.0), "values": rng.random((num, 1)).round(decimals)}
        for file, num in (("a", 1), ("b", 40), ("c", 17))
    }
    durations = {file: scores["timestamps"][-1] for file, scores in files.items()}
    evaluation_set = check_evaluation_set(dict.fromkeys(files, []), files, "scores", ["dog"], durations)
    detections = detections_at_all_thresholds(read_scores(files, evaluation_set), 0)
    all_scores = np.unique(np.concatenate([scores["values"] for scores in files.values()]))
    for threshold in [-1.0, *all_scores, *(all_scores - 1e-7)]:
        expected, start = set(), 0.0
        for file, scores in files.items():
            expected |= runs_by_loop(start + scores["timestamps"], scores["values"][:, 0], threshold)
            start += durations[file]
        alive = (detections.death <= threshold) & (threshold < detections.birth)
        found = list(zip(detections.onset[alive] / 1e6, detections.offset[alive] / 1e6, strict=True))
        assert len(found) == len(expected)
        assert set(found) == expected


def test_frames_beyond_the_file_are_cut_and_files_without_frames_pass():
    references = {"a": [[8.0, 10.0, "dog"]], "b": []}
    scores = {
        "a": {"timestamps": [0.0, 8.0, 12.0, 14.0], "values": [[0.1], [0.9], [0.9]]},
        "b": {"timestamps": [0.0], "values": []},
    }
    with pytest.warns(UserWarning, match=r"frames wholly outside their file in 1 file\(s\), the first is 'a'"):
        result = psds(references, scores, ["dog"], {"a": 10.0, "b": 5.0}, **STRICT)
    assert result["psds"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtc": 0.0}, r"dtc must be a ratio in \(0, 1\], got 0.0"),
        ({"gtc": 1.1}, r"gtc must be a ratio in \(0, 1\], got 1.1"),
        ({"cttc": -0.3}, r"cttc must be a ratio in \(0, 1\], got -0.3"),
        ({"alpha_ct": -1.0}, "alpha_ct must be >= 0"),
        ({"alpha_st": -1.0}, "alpha_st must be >= 0"),
        ({"alpha_ct": 0.5}, "alpha_ct > 0 needs cttc"),
        ({"e_max": 0.0}, "e_max must be a positive rate"),
    ],
)
def test_parameter_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        psds_from_boxes({"a": []}, {"a": []}, ["dog"], HOUR, **(STRICT | change))


@pytest.mark.parametrize(
    ("timestamps", "values", "message"),
    [
        ([0.0, 1.0], [[0.1, 0.2]], r"scores\['a'\] values must be frames x 1 classes, got \(1, 2\)"),
        ([0.0, 1.0], [0.1], "values must be frames x 1 classes"),
        ([0.0], [[0.1]], "must have one timestamp more than frames"),
        ([0.0, 0.0], [[0.1]], "timestamps must increase, got 0 s followed by 0 s"),
        ([0.0, 1.0], [[float("nan")]], "must be finite"),
        ([0.0, float("inf")], [[0.1]], "must be finite"),
    ],
)
def test_scores_are_refused(timestamps, values, message):
    with pytest.raises(ValueError, match=message):
        psds({"a": []}, {"a": {"timestamps": timestamps, "values": values}}, ["dog"], HOUR, **STRICT)
