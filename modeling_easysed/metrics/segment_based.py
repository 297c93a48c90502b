"""Segment-based F1 and error rate."""

from collections.abc import Mapping, Sequence

import numpy as np

from .averages import ErrorCounts, average_scores
from .events import MICROSECONDS_PER_SECOND, EvaluationSet, Events, EventTable, check_evaluation_set, read_events


def segment_based_metrics(
    references: Events,
    detections: Events,
    classes: Sequence[str],
    durations: Mapping[str, float],
    segment_s: float = 1.0,
) -> dict[str, dict]:
    """F1, precision, recall and error rate of class activity in segments of fixed length.

    A class is active in every segment that one of its events touches: from `floor(onset / segment_s)` to
    `ceil(offset / segment_s)`. True and false positives and misses are counted per segment and class. The micro error
    rate sums, over segments, S = min(N_ref, N_sys) - TP, D = max(0, N_ref - N_sys) and I = max(0, N_sys - N_ref), and
    divides by the sum of N_ref; per class there are no substitutions.

    Conventions, where the field's packages differ: a file has `ceil(duration / segment_s)` segments, as sed_eval does
    when it is given the length (without it, it ends at the last offset). Events are clipped to their file. A class
    with references and no output scores 0 (sed_eval: nan, left out of macro). An event of zero length is dropped with
    a warning (sed_eval: active, unless it lies on a whole second). Overlapping events of one class are accepted.

    Args:
        references: `{file: [[onset, offset, label], ...]}`, seconds; an empty list for a file without events.
        detections: the same form and the same files.
        classes: names of all classes.
        durations: `{file: seconds}` for the same files.
        segment_s: length of a segment in seconds.

    Returns:
        `micro`, `macro` and `class_wise` (a dict per class) with `f1`, `precision`, `recall`, `error_rate`; micro and
        class_wise also hold the counts of segments `tp`, `fp`, `fn`, and micro `substitutions`, `deletions`,
        `insertions`. nan where there is no reference; such a class is left out of macro and stays in micro.

    Raises:
        ValueError: if segment_s is not positive, or input that `read_events` or `check_evaluation_set` refuses.

    Source: Mesaros, Heittola & Virtanen, Metrics for Polyphonic Sound Event Detection, Applied Sciences 2016, 4.1-4.3.
    """
    if not segment_s > 0:
        raise ValueError(f"segment_s must be a positive number of seconds, got {segment_s}; 1.0 is the usual choice")
    evaluation_set = check_evaluation_set(references, detections, "detections", classes, durations)
    reference_active = _activity(read_events(references, "references", evaluation_set), evaluation_set, segment_s)
    detection_active = _activity(read_events(detections, "detections", evaluation_set), evaluation_set, segment_s)

    tp = (reference_active & detection_active).sum(axis=0)
    fp = (~reference_active & detection_active).sum(axis=0)
    fn = (reference_active & ~detection_active).sum(axis=0)
    errors = _count_errors(reference_active, detection_active)
    return average_scores(tp, fp, fn, evaluation_set.classes, errors)


def _activity(table: EventTable, evaluation_set: EvaluationSet, segment_s: float) -> np.ndarray:
    """(segments, classes) whether the class is active in the segment, the segments of all files after one another."""
    segment_us = segment_s * MICROSECONDS_PER_SECOND
    # half a microsecond, the rounding of times, decides for the border: 1 s is on one of segments of 1/3 s
    segments_per_file = np.ceil((evaluation_set.durations - 0.5) / segment_us).astype(np.int64)
    file_start = np.concatenate([[0], np.cumsum(segments_per_file)])
    first = file_start[table.file] + np.floor((table.onset + 0.5) / segment_us).astype(np.int64)
    stop = file_start[table.file] + np.ceil((table.offset - 0.5) / segment_us).astype(np.int64)
    active = np.zeros((file_start[-1], len(evaluation_set.classes)), dtype=bool)
    for row in range(len(table.file)):
        active[first[row] : stop[row], table.label[row]] = True
    return active


def _count_errors(reference_active: np.ndarray, detection_active: np.ndarray) -> ErrorCounts:
    num_references = reference_active.sum(axis=1)
    num_detections = detection_active.sum(axis=1)
    num_matched = (reference_active & detection_active).sum(axis=1)
    return ErrorCounts(
        substitutions=int((np.minimum(num_references, num_detections) - num_matched).sum()),
        deletions=int(np.maximum(0, num_references - num_detections).sum()),
        insertions=int(np.maximum(0, num_detections - num_references).sum()),
    )
