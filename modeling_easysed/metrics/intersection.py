"""Intersection criteria: which detections are relevant, which references are found, and at which thresholds.

All files are laid end to end on one timeline in whole microseconds, so that every count of a class is a handful of
array operations over all its files. A detection carries the thresholds at which it exists; counts are changes at
scores, which cumulate to the counts at every threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .averages import average_scores
from .events import Events, EventTable, check_evaluation_set, check_no_overlap, read_events

# Overlap ratios are compared after rounding: 2.1 s of 3 s is a ratio of 0.7 and meets 0.7, whatever float64 says.
RATIO_DECIMALS = 6


@dataclass(frozen=True)
class Criteria:
    """Least overlap ratios in (0, 1].

    Attributes:
        dtc: share of a detection that lies on references of its class, for the detection to be relevant.
        gtc: share of a reference that lies under relevant detections, for the reference to be found.
        cttc: share of a false positive that lies on references of another class, for a cross-trigger; None for none.
    """

    dtc: float
    gtc: float
    cttc: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} must be a ratio in (0, 1], got {value}; 0.5 or 0.7 is usual")


@dataclass(frozen=True)
class Spans:
    """References of one class on the timeline, (spans,) onset and offset, sorted and without overlap."""

    onset: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class Detections:
    """Detections of one class on the timeline, each existing at the thresholds with `death <= threshold < birth`."""

    onset: np.ndarray
    offset: np.ndarray
    birth: np.ndarray
    death: np.ndarray


@dataclass(frozen=True)
class OperatingPoints:
    """Counts of one class just below each score at which they change, the highest score first; (points,) each.

    Attributes:
        tp: references found.
        fp: detections that are not relevant.
        cross_trigger_cost: false positives on other classes, each weighted with the cost of that class.
    """

    tp: np.ndarray
    fp: np.ndarray
    cross_trigger_cost: np.ndarray


def lay_end_to_end(file_lengths: np.ndarray) -> np.ndarray:
    """(files,) lengths to (files,) starts on the timeline."""
    return np.concatenate([[0.0], np.cumsum(file_lengths)[:-1]])


def reference_spans(table: EventTable, file_starts: np.ndarray, num_classes: int) -> list[Spans]:
    """The references of each class on the timeline."""
    onset, offset = table.onset + file_starts[table.file], table.offset + file_starts[table.file]
    order = np.argsort(onset, kind="stable")
    by_class = [order[table.label[order] == index] for index in range(num_classes)]
    return [Spans(onset[rows], offset[rows]) for rows in by_class]


def boxes_of_class(table: EventTable, file_starts: np.ndarray, class_index: int) -> Detections:
    """Events with a fixed extent, each existing at every threshold below its score."""
    boxes = table.select(table.label == class_index)
    start = file_starts[boxes.file]
    return Detections(boxes.onset + start, boxes.offset + start, boxes.score, np.full(len(start), -np.inf))


def operating_points(
    detections: Detections,
    class_index: int,
    references: list[Spans],
    criteria: Criteria,
    cross_trigger_costs: np.ndarray | None = None,
) -> OperatingPoints:
    """The counts of one class at all thresholds.

    A detection is relevant if enough of it lies on references of its class, summed over them; otherwise it is a false
    positive, and stays one when it is a cross-trigger as well. A relevant detection whose reference is not found is
    neither true nor false positive.

    Args:
        detections: of the class.
        class_index: its position in `references`.
        references: spans of every class.
        criteria: overlap ratios.
        cross_trigger_costs: (classes,) cost of one cross-trigger on each class.

    Source: Bilen et al., A Framework for the Robust Evaluation of Sound Event Detection, ICASSP 2020, section 3;
    Ebbers, Serizel & Haeb-Umbach, Threshold Independent Evaluation of Sound Event Detection Scores, ICASSP 2022
    (counts as cumulated changes at scores).
    """
    own = references[class_index]
    relevant = _overlap_ratio(detections, own) >= criteria.dtc
    false = _select(detections, ~relevant)
    cost = _cross_trigger_cost(false, class_index, references, criteria.cttc, cross_trigger_costs)
    scores, found = _found_reference_changes(_select(detections, relevant), own, criteria.gtc)

    one, zero = np.ones(len(cost)), np.zeros(len(cost))
    nothing = np.zeros(len(found))
    all_scores = np.concatenate([scores, false.birth, false.death])
    tp_fp_cost = [[found, zero, zero], [nothing, one, -one], [nothing, cost, -cost]]
    return OperatingPoints(*_cumulate(all_scores, np.array([np.concatenate(parts) for parts in tp_fp_cost])))


def _cross_trigger_cost(
    false: Detections, class_index: int, references: list[Spans], cttc: float | None, costs: np.ndarray | None
) -> np.ndarray:
    """(false positives,) the summed cost of the cross-triggers of each."""
    cost = np.zeros(len(false.onset))
    if cttc is None or costs is None:
        return cost
    for other, spans in enumerate(references):
        if other != class_index and len(spans.onset) > 0:
            cost += costs[other] * (_overlap_ratio(false, spans) >= cttc)
    return cost


def _select(detections: Detections, rows: np.ndarray) -> Detections:
    return Detections(*(column[rows] for column in vars(detections).values()))


def _overlap_ratio(detections: Detections, spans: Spans) -> np.ndarray:
    """(detections,) share of each detection that lies on the spans, rounded."""
    covered = _covered_before(detections.offset, spans) - _covered_before(detections.onset, spans)
    return np.round(covered / (detections.offset - detections.onset), RATIO_DECIMALS)


def _covered_before(times: np.ndarray, spans: Spans) -> np.ndarray:
    """(times,) how much of the timeline before each time lies on the spans."""
    if len(spans.onset) == 0:
        return np.zeros(len(times))
    cumulated = np.cumsum(spans.offset - spans.onset)
    last = np.searchsorted(spans.onset, times, side="right") - 1
    covered = cumulated[last] - np.maximum(0, spans.offset[last] - times)
    return np.where(last >= 0, covered, 0.0)


def _found_reference_changes(relevant: Detections, own: Spans, gtc: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores at which a reference becomes found (+1) or is lost again (-1), as (changes,) scores and signs."""
    detection, reference = _overlapping_pairs(relevant, own)
    overlap = np.minimum(relevant.offset[detection], own.offset[reference]) - np.maximum(
        relevant.onset[detection], own.onset[reference]
    )
    reference = np.concatenate([reference, reference])
    score = np.concatenate([relevant.birth[detection], relevant.death[detection]])
    overlap = np.concatenate([overlap, -overlap])
    order = np.lexsort((-score, reference))
    # a reference's changes sum to exactly 0, so one running sum serves all references
    reference, score, covered = reference[order], score[order], np.cumsum(overlap[order])
    # only the last of several changes at one score is a state that a threshold can see
    settled = _is_last_of_group(reference, score)
    reference, score, covered = reference[settled], score[settled], covered[settled]
    found = np.round(covered / (own.offset - own.onset)[reference], RATIO_DECIMALS) >= gtc
    # the last state of each reference is "not found", so the state before is right for a first row as well
    return score, np.diff(found.astype(np.float64), prepend=0.0)


def _is_last_of_group(*keys: np.ndarray) -> np.ndarray:
    """(rows,) whether the next row differs in any of the sorted keys; True for the last row."""
    differs = np.zeros(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        differs |= key[1:] != key[:-1]
    return np.append(differs, np.ones(min(len(keys[0]), 1), dtype=bool))


def _overlapping_pairs(detections: Detections, spans: Spans) -> tuple[np.ndarray, np.ndarray]:
    """(pairs,) indices of the detection and of the span of every pair that overlaps."""
    first = np.searchsorted(spans.offset, detections.onset, side="right")
    stop = np.searchsorted(spans.onset, detections.offset, side="left")
    counts = np.maximum(stop - first, 0)
    detection = np.repeat(np.arange(len(counts)), counts)
    position = np.arange(len(detection)) - np.repeat(np.cumsum(counts) - counts, counts)
    return detection, first[detection] + position


def _cumulate(scores: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """(counts, changes) at (changes,) scores to (counts, points) just below each distinct score, highest first."""
    # what dies at -inf never dies: no threshold is below
    order = np.argsort(-scores)[: np.isfinite(scores).sum()]
    return np.cumsum(changes[:, order], axis=1)[:, _is_last_of_group(scores[order])]


def intersection_f1(
    references: Events,
    detections: Events,
    classes: Sequence[str],
    dtc: float = 0.5,
    gtc: float = 0.5,
    durations: Mapping[str, float] | None = None,
) -> dict[str, dict]:
    """F1 of references found by intersection, at one operating point.

    A reference is a true positive if relevant detections cover `gtc` of it, a detection that is not relevant (less
    than `dtc` of it on references of its class) is a false positive: `F1 = 2 TP / (2 TP + FP + FN)`.

    Conventions, where the field's packages differ: a class with references and no true positive scores 0, as in
    sed_scores_eval (psds_eval, and so the DESED baselines, leave it out of the mean, which inflates it). Ratios are
    rounded to 6 decimals. Touching events are separate events; overlapping events of one class are an error.

    Args:
        references: `{file: [[onset, offset, label], ...]}`, seconds; an empty list for a file without events.
        detections: the same form and the same files.
        classes: names of all classes.
        dtc: detection tolerance, a ratio in (0, 1].
        gtc: ground truth tolerance, a ratio in (0, 1].
        durations: `{file: seconds}`; if given, events are clipped to their file first.

    Returns:
        `micro`, `macro` and `class_wise` (a dict per class) with `f1`, `precision`, `recall`; micro and class_wise
        also hold `tp`, `fp`, `fn`. nan for a class without references, which is left out of macro, not of micro.

    Raises:
        ValueError: for a ratio outside (0, 1], overlapping events, or input that `read_events` refuses.

    Source: Bilen et al., A Framework for the Robust Evaluation of Sound Event Detection, ICASSP 2020, section 3.
    """
    criteria = Criteria(dtc, gtc)
    evaluation_set = check_evaluation_set(references, detections, "detections", classes, durations)
    reference_table = read_events(references, "references", evaluation_set)
    detection_table = read_events(detections, "detections", evaluation_set)
    check_no_overlap(reference_table, "references", evaluation_set)
    check_no_overlap(detection_table, "detections", evaluation_set)

    num_classes = len(evaluation_set.classes)
    file_lengths = np.zeros(len(evaluation_set.files))
    for table in (reference_table, detection_table):
        np.maximum.at(file_lengths, table.file, table.offset)
    file_starts = lay_end_to_end(file_lengths)
    spans = reference_spans(reference_table, file_starts, num_classes)
    counts = np.zeros((num_classes, 2), dtype=np.int64)
    for index in range(num_classes):
        points = operating_points(boxes_of_class(detection_table, file_starts, index), index, spans, criteria)
        if len(points.tp) > 0:
            counts[index] = points.tp[-1], points.fp[-1]
    tp, fp = counts.T
    fn = np.bincount(reference_table.label, minlength=num_classes) - tp
    return average_scores(tp, fp, fn, evaluation_set.classes)
