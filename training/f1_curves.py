"""Event-based and segment-based F1 per class at every threshold in one pass: what tuning a decoding maximises.

Equal to the metrics of the package at each single threshold, which take a list of events."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from modeling_easysed.decoding_easysed import Box, candidate_boxes

ONSET_COLLAR_S, OFFSET_COLLAR_S, OFFSET_COLLAR_RATE = 0.2, 0.2, 0.2
ROUNDING_S = 1e-6


class Recording(NamedTuple):
    """One file and one exit: (frames, classes), (frames + 1,) seconds, events (onset, offset, class index), seconds."""

    probabilities: np.ndarray
    borders: np.ndarray
    events: np.ndarray


class Curves(NamedTuple):
    """Per class and threshold: event-based and segment-based F1, each (classes, thresholds)."""

    event_f1: np.ndarray
    segment_f1: np.ndarray


def true_positives(boxes: Sequence[Box], events: np.ndarray) -> np.ndarray:
    """(boxes,) whether each box adds a match when boxes come in order of falling score.

    The matching grows by augmenting paths, so that at every threshold the count is that of the largest matching.
    """
    is_match = np.zeros(len(boxes), dtype=bool)
    if len(boxes) == 0 or len(events) == 0:
        return is_match
    table = np.asarray(boxes)
    offset_collar = np.maximum(OFFSET_COLLAR_S, OFFSET_COLLAR_RATE * (events[:, 1] - events[:, 0]))
    within = np.abs(table[:, None, 0] - events[None, :, 0]) <= ONSET_COLLAR_S + ROUNDING_S
    within &= np.abs(table[:, None, 1] - events[None, :, 1]) <= offset_collar + ROUNDING_S
    within &= table[:, None, 2] == events[None, :, 2]
    owner: dict[int, int] = {}

    def augment(box: int, seen: set[int]) -> bool:
        for event in np.flatnonzero(within[box]).tolist():
            if event not in seen:
                seen.add(event)
                if event not in owner or augment(owner[event], seen):
                    owner[event] = box
                    return True
        return False

    for box in np.argsort(-table[:, 3], kind="stable").tolist():
        is_match[box] = within[box].any() and augment(box, set())
    return is_match


def segment_activity(spans: np.ndarray, values: np.ndarray, num_segments: int, num_classes: int) -> np.ndarray:
    """(segments, classes): largest of `values` among the spans (onset, offset, class) that touch the 1 s segment."""
    activity = np.zeros((num_segments, num_classes))
    for (onset, offset, label), value in zip(spans[:, :3].tolist(), values.tolist(), strict=True):
        touched = activity[math.floor(onset + ROUNDING_S) : math.ceil(offset - ROUNDING_S), int(label)]
        np.maximum(touched, value, out=touched)
    return activity


def f1_curve(
    labels: np.ndarray, scores: np.ndarray, hits: np.ndarray, totals: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """F1 (classes, thresholds) of items (class, score, hit or not) that are active above a threshold."""
    num_classes, num_thresholds = len(totals), len(thresholds)
    passed = np.searchsorted(thresholds, scores, side="left")  # so many thresholds lie below the score
    bins = labels * (num_thresholds + 1) + passed
    counts = []
    for weights in (np.ones(len(scores)), hits.astype(np.float64)):
        histogram = np.bincount(bins, weights, num_classes * (num_thresholds + 1)).reshape(num_classes, -1)
        counts.append(histogram[:, ::-1].cumsum(1)[:, ::-1][:, 1:])
    active, tp = counts
    return 2 * tp / np.maximum(active + totals[:, None], 1)


def curves_of(
    recordings: Sequence[Recording], decodings: Sequence[dict[str, Any] | None], thresholds: np.ndarray
) -> Curves:
    """F1 at every threshold.

    Args:
        recordings: the files of one exit.
        decodings: one for all thresholds (boxes, whose borders they do not move), or one per threshold.
        thresholds: increasing; a box is an event when its score is above.
    """
    if len(decodings) == 1:
        return _curves_of_boxes(recordings, decodings[0], thresholds)
    parts = [_curves_of_boxes(recordings, decoding, np.zeros(1)) for decoding in decodings]
    return Curves(*(np.concatenate(column, axis=1) for column in zip(*parts, strict=True)))


def _curves_of_boxes(
    recordings: Sequence[Recording], decoding: dict[str, Any] | None, thresholds: np.ndarray
) -> Curves:
    num_classes = recordings[0].probabilities.shape[1]
    rows, hits, activity, truth = [], [], [], []
    for probabilities, borders, events in recordings:
        boxes = candidate_boxes(probabilities, borders, decoding)
        table = np.asarray(boxes).reshape(-1, 4)
        rows.append(table)
        hits.append(true_positives(boxes, events))
        num_segments = math.ceil(borders[-1] - ROUNDING_S)
        activity.append(segment_activity(table, table[:, 3], num_segments, num_classes))
        truth.append(segment_activity(events, np.ones(len(events)), num_segments, num_classes))
    events = np.concatenate([recording.events for recording in recordings])
    table, scores, active = np.concatenate(rows), np.concatenate(activity), np.concatenate(truth)
    num_events = np.bincount(events[:, 2].astype(np.int64), minlength=num_classes)
    event_f1 = f1_curve(table[:, 2].astype(np.int64), table[:, 3], np.concatenate(hits), num_events, thresholds)
    labels = np.tile(np.arange(num_classes), len(scores))
    is_scored = scores.ravel() > 0
    segments = (labels[is_scored], scores.ravel()[is_scored], active.ravel()[is_scored] > 0)
    return Curves(event_f1, f1_curve(*segments, active.sum(0), thresholds))
