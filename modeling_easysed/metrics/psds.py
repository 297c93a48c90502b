"""Polyphonic sound detection score, exact: from the operating points at all thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .events import (
    MICROSECONDS_PER_SECOND,
    EvaluationSet,
    Events,
    check_evaluation_set,
    check_no_overlap,
    read_events,
    warn_of_absent_classes,
)
from .frame_scores import detections_at_all_thresholds, read_scores
from .intersection import (
    Criteria,
    Detections,
    OperatingPoints,
    Spans,
    boxes_of_class,
    lay_end_to_end,
    operating_points,
    reference_spans,
)

MICROSECONDS_PER_HOUR = 3600 * MICROSECONDS_PER_SECOND


@dataclass(frozen=True)
class PsdsSettings:
    """Weights and limit of the score.

    Attributes:
        alpha_ct: weight of cross-triggers in the effective false positive rate, >= 0.
        alpha_st: weight of the spread over classes, >= 0.
        e_max: largest effective false positive rate per hour, > 0.
    """

    alpha_ct: float
    alpha_st: float
    e_max: float

    def __post_init__(self) -> None:
        for name in ("alpha_ct", "alpha_st"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}; use 0 to leave the term out")
        if not self.e_max > 0:
            raise ValueError(f"e_max must be a positive rate per hour, got {self.e_max}; DCASE uses 100")


def psds(
    references: Events,
    scores: Mapping[str, Mapping[str, Any]],
    classes: Sequence[str],
    durations: Mapping[str, float],
    dtc: float,
    gtc: float,
    cttc: float | None = None,
    alpha_ct: float = 0.0,
    alpha_st: float = 1.0,
    e_max: float = 100.0,
) -> dict[str, Any]:
    """Exact PSDS of frame scores: a detection is a run of frames with score > threshold.

    DCASE scenario 1 is `dtc=0.7, gtc=0.7`; scenario 2 is `dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5`; both with
    `alpha_st=1, e_max=100`. With TPR and eFPR per class at every threshold, `eFPR = FP / hours + alpha_ct * mean over
    the other classes k of (cross-triggers on k / hours of references of k)`; the best TPR at up to each eFPR makes the
    class's curve; `eTPR = max(0, mean - alpha_st * population std)` over the classes; PSDS is the mean of eTPR over
    0..e_max.

    Conventions, where the field's packages differ: the exact value (psds_eval's 50 thresholds underestimate it).
    Every file counts, also one without references (the DESED baseline code drops those, and so their false alarms).
    A class without references is nan and left out, with a warning (sed_scores_eval refuses it). A task with one class
    has no cross-triggers (psds_eval: score 0). Ratios are rounded to 6 decimals as in sed_scores_eval. Frames are
    clipped to the file; frames wholly outside are dropped with a warning (sed_scores_eval counts them). Touching
    references are separate events, overlapping ones of one class are an error.

    Args:
        references: `{file: [[onset, offset, label], ...]}`, seconds; an empty list for a file without events.
        scores: `{file: {"timestamps": T + 1 borders in seconds, "values": T x C scores}}`, C in the order of classes.
        classes: names of all classes.
        durations: `{file: seconds}` for the same files.
        dtc: detection tolerance, a ratio in (0, 1].
        gtc: ground truth tolerance, a ratio in (0, 1].
        cttc: cross-trigger tolerance, a ratio in (0, 1], or None.
        alpha_ct: weight of cross-triggers, >= 0; needs cttc if > 0.
        alpha_st: weight of the spread over classes, >= 0.
        e_max: largest effective false positive rate, per hour.

    Returns:
        `psds` in [0, 1], nan without any reference; `class_wise`, `{class: mean of its TPR over 0..e_max}`; `psd_roc`,
        the stairs `{"efpr_per_hour": [...], "etpr": [...]}`, each value held up to the next rate, the last is e_max.

    Raises:
        ValueError: for a parameter out of range, overlapping references, scores that do not fit the classes, or input
            that `read_events` or `check_evaluation_set` refuses.

    Source: Bilen et al., A Framework for the Robust Evaluation of Sound Event Detection, ICASSP 2020 (arXiv
    1910.08440); Ebbers, Serizel & Haeb-Umbach, Threshold Independent Evaluation of Sound Event Detection Scores,
    ICASSP 2022 (arXiv 2201.13148).
    """
    criteria, settings = _check_parameters(dtc, gtc, cttc, alpha_ct, alpha_st, e_max)
    evaluation_set = check_evaluation_set(references, scores, "scores", classes, durations)
    spans = _read_references(references, evaluation_set)
    frames = read_scores(scores, evaluation_set)
    detections = [detections_at_all_thresholds(frames, index) for index in range(len(evaluation_set.classes))]
    return _score(detections, spans, evaluation_set, criteria, settings)


def psds_from_boxes(
    references: Events,
    boxes: Events,
    classes: Sequence[str],
    durations: Mapping[str, float],
    dtc: float,
    gtc: float,
    cttc: float | None = None,
    alpha_ct: float = 0.0,
    alpha_st: float = 1.0,
    e_max: float = 100.0,
) -> dict[str, Any]:
    """Exact PSDS of scored boxes: a threshold selects the boxes with score > threshold, their borders never move.

    The score, conventions, other arguments, result and errors are those of `psds`.

    Args:
        references: `{file: [[onset, offset, label], ...]}`, seconds; an empty list for a file without events.
        boxes: `{file: [[onset, offset, label, score], ...]}`, seconds. Boxes of one class must not overlap in a file.
        classes: names of all classes.
        durations: `{file: seconds}` for the same files.
        dtc: as in `psds`, like the arguments after it.
        gtc: see dtc.
        cttc: see dtc.
        alpha_ct: see dtc.
        alpha_st: see dtc.
        e_max: see dtc.

    Source: Ebbers, Germain, Wichern & Le Roux, Sound Event Bounding Boxes, Interspeech 2024 (arXiv 2406.04212).
    """
    criteria, settings = _check_parameters(dtc, gtc, cttc, alpha_ct, alpha_st, e_max)
    evaluation_set = check_evaluation_set(references, boxes, "boxes", classes, durations)
    spans = _read_references(references, evaluation_set)
    box_table = read_events(boxes, "boxes", evaluation_set, scored=True)
    check_no_overlap(box_table, "boxes", evaluation_set)
    file_starts = lay_end_to_end(evaluation_set.durations)
    detections = [boxes_of_class(box_table, file_starts, index) for index in range(len(evaluation_set.classes))]
    return _score(detections, spans, evaluation_set, criteria, settings)


def _check_parameters(
    dtc: float, gtc: float, cttc: float | None, alpha_ct: float, alpha_st: float, e_max: float
) -> tuple[Criteria, PsdsSettings]:
    criteria, settings = Criteria(dtc, gtc, cttc), PsdsSettings(alpha_ct, alpha_st, e_max)
    if cttc is None and alpha_ct > 0:
        raise ValueError(f"alpha_ct > 0 needs cttc, got alpha_ct={alpha_ct} and cttc=None; DCASE scenario 2 uses 0.3")
    return criteria, settings


def _read_references(references: Events, evaluation_set: EvaluationSet) -> list[Spans]:
    table = read_events(references, "references", evaluation_set)
    check_no_overlap(table, "references", evaluation_set)
    return reference_spans(table, lay_end_to_end(evaluation_set.durations), len(evaluation_set.classes))


def _score(
    detections: list[Detections],
    references: list[Spans],
    evaluation_set: EvaluationSet,
    criteria: Criteria,
    settings: PsdsSettings,
) -> dict[str, Any]:
    num_references = np.array([len(spans.onset) for spans in references])
    warn_of_absent_classes(num_references, evaluation_set.classes)
    hours = evaluation_set.durations.sum() / MICROSECONDS_PER_HOUR
    costs = _cross_trigger_costs(references, settings.alpha_ct)
    class_wise, curves = dict.fromkeys(evaluation_set.classes, float("nan")), []
    for index in np.flatnonzero(num_references):
        points = operating_points(detections[index], index, references, criteria, costs)
        efpr, tpr = _class_curve(points, num_references[index], hours)
        curves.append((efpr, tpr))
        class_wise[evaluation_set.classes[index]] = _mean_up_to(efpr, tpr, settings.e_max)
    if not curves:
        return {"psds": float("nan"), "class_wise": class_wise, "psd_roc": {"efpr_per_hour": [], "etpr": []}}
    efpr, etpr = _effective_curve(curves, settings)
    roc = {"efpr_per_hour": [*efpr.tolist(), settings.e_max], "etpr": [*etpr.tolist(), float(etpr[-1])]}
    return {"psds": _mean_up_to(efpr, etpr, settings.e_max), "class_wise": class_wise, "psd_roc": roc}


def _cross_trigger_costs(references: list[Spans], alpha_ct: float) -> np.ndarray:
    """(classes,) what one cross-trigger on each class adds to an effective false positive rate per hour."""
    hours = np.array([(spans.offset - spans.onset).sum() for spans in references]) / MICROSECONDS_PER_HOUR
    num_others = np.count_nonzero(hours) - 1
    if num_others < 1:
        return np.zeros(len(references))
    return alpha_ct / num_others / np.where(hours > 0, hours, np.inf)


def _class_curve(points: OperatingPoints, num_references: int, hours: float) -> tuple[np.ndarray, np.ndarray]:
    """Stairs of a class: rising eFPR per hour, and the best TPR at up to that rate; both (points + 1,)."""
    efpr = np.append(0.0, points.fp / hours + np.maximum(0.0, points.cross_trigger_cost))
    tpr = np.append(0.0, points.tp / num_references)
    order = np.argsort(efpr, kind="stable")
    return efpr[order], np.maximum.accumulate(tpr[order])


def _effective_curve(
    curves: list[tuple[np.ndarray, np.ndarray]], settings: PsdsSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Stairs over all classes: the rates below e_max at which any class changes, and eTPR from each on."""
    rates = np.unique(np.concatenate([efpr[efpr < settings.e_max] for efpr, _ in curves]))
    steps = [tpr[np.searchsorted(efpr, rates, side="right") - 1] for efpr, tpr in curves]
    mean = sum(steps) / len(steps)
    spread = np.sqrt(sum((step - mean) ** 2 for step in steps) / len(steps))
    return rates, np.maximum(0.0, mean - settings.alpha_st * spread)


def _mean_up_to(rates: np.ndarray, values: np.ndarray, limit: float) -> float:
    """Mean over 0..limit of the stairs that hold each value from its rate on."""
    borders = np.append(np.minimum(rates, limit), limit)
    return float((values * np.diff(borders)).sum() / limit)
