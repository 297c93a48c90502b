"""Event-based (collar) F1 and error rate."""

from collections.abc import Mapping, Sequence

import numpy as np

from .averages import ErrorCounts, average_scores
from .events import Events, EventTable, check_evaluation_set, read_events, to_microseconds
from .matching import maximum_matching


def event_based_metrics(
    references: Events,
    detections: Events,
    classes: Sequence[str],
    onset_collar_s: float = 0.2,
    offset_collar_s: float = 0.2,
    offset_collar_rate: float = 0.2,
    durations: Mapping[str, float] | None = None,
) -> dict[str, dict]:
    """F1, precision, recall and error rate of events whose borders fall within collars.

    A detection matches a reference of its class and file if `|onset difference| <= onset_collar_s` and
    `|offset difference| <= max(offset_collar_s, offset_collar_rate * reference length)`. As many pairs as possible are
    matched, one to one. `F1 = 2 TP / (N_ref + N_sys)`. The error rate is (S + D + I) / N_ref: in micro, S counts the
    pairs within the collars with different labels among what is left; per class there are no substitutions.

    Conventions, where the field's packages differ: a class with references and no output scores 0 (sed_eval's default
    leaves it out and inflates macro; DCASE scores 0 as here). The offset collar is 20 % of the length as in DCASE
    (sed_eval's default is 50 %). Matching is optimal, not greedy. Differences are compared in whole microseconds as in
    sed_scores_eval (sed_eval rejects 2.2 - 2.0). Substitutions are matched optimally too (sed_eval: first come). An
    unlisted class is an error (sed_eval counts it in micro only). Overlapping and touching events of one class are
    accepted; repeated and empty events are dropped with a warning.

    Args:
        references: `{file: [[onset, offset, label], ...]}`, seconds; an empty list for a file without events.
        detections: the same form and the same files.
        classes: names of all classes.
        onset_collar_s: tolerance of the onset in seconds.
        offset_collar_s: least tolerance of the offset in seconds.
        offset_collar_rate: tolerance of the offset as a share of the reference length.
        durations: `{file: seconds}`; if given, events are clipped to their file first.

    Returns:
        `micro`, `macro` and `class_wise` (a dict per class) with `f1`, `precision`, `recall`, `error_rate`; micro and
        class_wise also hold the counts `tp`, `fp`, `fn`, and micro `substitutions`, `deletions`, `insertions`. nan
        where there is no reference; such a class is left out of macro and stays in micro.

    Raises:
        ValueError: for a negative collar, or input that `read_events` or `check_evaluation_set` refuses.

    Source: Mesaros, Heittola & Virtanen, Metrics for Polyphonic Sound Event Detection, Applied Sciences 2016, 4.1-4.3.
    """
    _check_collars(onset_collar_s, offset_collar_s, offset_collar_rate)
    evaluation_set = check_evaluation_set(references, detections, "detections", classes, durations)
    reference_table = read_events(references, "references", evaluation_set)
    detection_table = read_events(detections, "detections", evaluation_set)

    num_classes = len(evaluation_set.classes)
    tp, substitutions = np.zeros(num_classes, dtype=np.int64), 0
    for file in range(len(evaluation_set.files)):
        pair = reference_table.of_file(file), detection_table.of_file(file)
        within = _within_collars(*pair, onset_collar_s, offset_collar_s, offset_collar_rate)
        file_tp, file_substitutions = _match_file(pair[0].label, pair[1].label, within)
        tp += np.bincount(file_tp, minlength=num_classes)
        substitutions += file_substitutions

    fn = np.bincount(reference_table.label, minlength=num_classes) - tp
    fp = np.bincount(detection_table.label, minlength=num_classes) - tp
    errors = ErrorCounts(substitutions, int(fn.sum()) - substitutions, int(fp.sum()) - substitutions)
    return average_scores(tp, fp, fn, evaluation_set.classes, errors)


def _check_collars(onset_collar_s: float, offset_collar_s: float, offset_collar_rate: float) -> None:
    for name, value in locals().items():
        if not value >= 0:
            raise ValueError(f"{name} must be >= 0, got {value}; use 0 for an exact border")


def _within_collars(
    references: EventTable, detections: EventTable, onset_collar_s: float, offset_collar_s: float, rate: float
) -> np.ndarray:
    """(references, detections) whether both borders of the pair are within the collars, whatever the labels."""
    onset_distance = np.abs(references.onset[:, None] - detections.onset[None, :])
    offset_distance = np.abs(references.offset[:, None] - detections.offset[None, :])
    length_collar = np.round(rate * (references.offset - references.onset))
    offset_collar = np.maximum(to_microseconds(offset_collar_s), length_collar)
    return (onset_distance <= to_microseconds(onset_collar_s)) & (offset_distance <= offset_collar[:, None])


def _match_file(
    reference_labels: np.ndarray, detection_labels: np.ndarray, within: np.ndarray
) -> tuple[np.ndarray, int]:
    """The labels of the true positives of one file, and the number of substitutions among the rest."""
    matched = maximum_matching(within & (reference_labels[:, None] == detection_labels[None, :]))
    detection_is_left = np.ones(len(detection_labels), dtype=bool)
    detection_is_left[matched[matched >= 0]] = False
    # what is left within the collars has another label: a pair with the same one would have been matched
    substituted = maximum_matching(within[matched < 0][:, detection_is_left])
    return reference_labels[matched >= 0], int((substituted >= 0).sum())
