"""Scores of a new sound on held-out scenes: what is found at which threshold, and how many false alarms that costs.

A box is right when half of it lies on the event and it covers half of the event (see event_truth.py); any other box of
the new class is a false alarm. On background, on old sounds and on noise every box is one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from event_truth import DTC, GTC, ROUNDING
from rare_event_data import SCENE_S
from rare_event_scenes import SceneSet
from rare_event_statistics import FalseAlarms, Recall

from modeling_easysed.decoding_easysed import candidate_boxes, class_parameters, decoding_for_exit, frame_borders

FLOOR = 0.02  # boxes with a lower score are no use at any threshold
THRESHOLD_LOGITS = np.linspace(-3.8, 6.0, 99)
SMOOTHING_LOGITS = 0.8  # as in tune_decoding.py: the best of few events is mostly luck
RATES_PER_HOUR = (1.0, 3.0, 10.0, 30.0)  # of false alarms, over which two models are compared

Spans = Sequence[tuple[float, float]]  # (onset, offset), seconds


@dataclass
class Alarms:
    """Boxes where nothing is: scores and folds (boxes,), and the hours of every fold (folds,), 0 = left out."""

    scores: np.ndarray
    folds: np.ndarray
    hours: np.ndarray

    def at(self, threshold: float) -> FalseAlarms:
        return FalseAlarms(int((self.scores > threshold).sum()), float(self.hours.sum()))

    def of_folds(self, folds: Sequence[int]) -> "Alarms":
        own = np.isin(self.folds, list(folds))
        hours = np.where(np.isin(np.arange(len(self.hours)), list(folds)), self.hours, 0.0)
        return Alarms(self.scores[own], self.folds[own], hours)


@dataclass
class HeldOut:
    """What models that did not hear a fold make of it.

    Attributes:
        scores: (events,) of the best right box on every event, 0 = none.
        groups, folds: (events,) recording and fold.
        wrong: boxes on the same scenes that are not right.
        background: boxes on background; rehearsal: on old sounds, or None.
        all_hours: of background and old sounds, where this is a part of a whole; None = this is all.
    """

    scores: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    wrong: Alarms
    background: Alarms
    rehearsal: Alarms | None
    all_hours: float | None = None

    def of_folds(self, folds: Sequence[int]) -> "HeldOut":
        own = np.isin(self.folds, list(folds))
        old = None if self.rehearsal is None else self.rehearsal.of_folds(folds)
        parts = (self.wrong.of_folds(folds), self.background.of_folds(folds), old)
        whole = self.hours if self.all_hours is None else self.all_hours
        return HeldOut(self.scores[own], self.groups[own], self.folds[own], *parts, whole)

    def recall_at(self, threshold: float) -> Recall:
        return Recall(int((self.scores > threshold).sum()), len(self.scores), len(np.unique(self.groups)))

    def group_recall(self, threshold: float) -> np.ndarray:
        """(recordings,) share of each recording's mixtures that is found, in order of their numbers."""
        return np.array([(self.scores[self.groups == group] > threshold).mean() for group in np.unique(self.groups)])

    @property
    def hours(self) -> float:
        """Of background and old sounds."""
        return sum(float(part.hours.sum()) for part in self._without_the_sound)

    @property
    def _without_the_sound(self) -> list[Alarms]:
        return [self.background] if self.rehearsal is None else [self.background, self.rehearsal]

    def threshold_at(self, per_hour: float) -> float:
        """The lowest threshold with at most so many false alarms per hour of background and old sounds.

        A part of a whole may have its share of what the whole may have: the whole number that fits into the hours of
        four folds of five would often be none where that of all five is one.
        """
        scores = np.concatenate([part.scores for part in self._without_the_sound])
        whole, share = self.hours, 1.0
        if self.all_hours is not None:
            whole, share = self.all_hours, self.hours / self.all_hours
        return threshold_with(scores, round(allowed_alarms(whole, per_hour) * share))

    @property
    def group_sensitivity(self) -> np.ndarray:
        """(recordings,) recall of each, mean over 1, 3, 10 and 30 false alarms per hour: ranks models."""
        return np.mean([self.group_recall(self.threshold_at(rate)) for rate in RATES_PER_HOUR], axis=0)

    @property
    def sensitivity(self) -> float:
        """Mean of `group_sensitivity`."""
        return float(self.group_sensitivity.mean())


# ---- boxes -----------------------------------------------------------------------------------------------------------


def new_class_parameters(decoding: dict[str, Any] | None, exit_index: int, num_old: int) -> dict[str, float]:
    """How the new class is decoded at an exit, without its threshold: the median of the old classes' parameters."""
    old = class_parameters(decoding_for_exit(decoding, exit_index), num_old)
    return {name: round(float(np.median(values)), 4) for name, values in old.items() if name != "threshold"}


def judge_columns(
    probabilities: np.ndarray, borders: np.ndarray, events: Spans, parameters: dict[str, float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every column of probabilities (frames, columns): scores (events,) and scores of the other boxes.

    Args:
        probabilities: of the new class, one column per model.
        borders: (frames + 1,) seconds.
        events: of the new class.
        parameters: of the decoding.
    """
    best = np.zeros((probabilities.shape[1], len(events)))
    wrong: list[list[float]] = [[] for _ in range(probabilities.shape[1])]
    for box in candidate_boxes(probabilities, borders, {"method": "boxes", "default": parameters}):
        if box.score <= FLOOR:
            continue
        overlaps = [max(0.0, min(box.offset, off) - max(box.onset, on)) for on, off in events]
        is_relevant = sum(overlaps) >= DTC * (box.offset - box.onset) - ROUNDING
        found = [
            index
            for index, ((on, off), overlap) in enumerate(zip(events, overlaps, strict=True))
            if is_relevant and overlap >= GTC * (off - on) - ROUNDING
        ]
        for index in found:
            best[box.class_index, index] = max(best[box.class_index, index], box.score)
        if not found:
            wrong[box.class_index].append(box.score)
    return [(scores, np.array(others, dtype=np.float64)) for scores, others in zip(best, wrong, strict=True)]


def score_set(
    scenes: SceneSet, probabilities: np.ndarray, num_folds: int, parameters: dict[str, float], frame_duration_s: float
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, Alarms]]:
    """Per column: scores, recordings and folds of the events, and the other boxes.

    Args:
        scenes: a set whose folds are 0 .. num_folds - 1.
        probabilities: (scenes, output frames, columns) of models that did not hear the scene's fold.
        num_folds: how many.
        parameters: of the decoding.
        frame_duration_s: of an output frame.
    """
    borders = frame_borders(scenes.targets.shape[1], frame_duration_s, SCENE_S)
    hours = np.bincount(scenes.folds, minlength=num_folds) * SCENE_S / 3600
    judged = [
        judge_columns(own, borders, events, parameters)
        for own, events in zip(probabilities, scenes.events, strict=True)
    ]
    num_events = [len(events) for events in scenes.events]
    columns = []
    for number in range(probabilities.shape[2]):
        scores, others = zip(*(scene[number] for scene in judged), strict=True)
        other_folds = np.repeat(scenes.folds, [len(one) for one in others])
        alarms = Alarms(np.concatenate(others), other_folds, hours)
        groups, folds = (np.repeat(values, num_events) for values in (scenes.groups, scenes.folds))
        columns.append((np.concatenate(scores), groups, folds, alarms))
    return columns


# ---- thresholds ------------------------------------------------------------------------------------------------------


def allowed_alarms(hours: float, per_hour: float) -> int:
    """The whole number of false alarms that keeps a rate."""
    return math.floor(per_hour * hours + 1e-9)


def threshold_with(scores: np.ndarray, allowed: int) -> float:
    """Lowest threshold with at most `allowed` false alarms, whose scores these are."""
    falling = np.sort(scores)[::-1]
    return float(falling[allowed]) if allowed < len(falling) else FLOOR


def threshold_at(scores: np.ndarray, hours: float, per_hour: float) -> float:
    """Lowest threshold with at most `per_hour` x `hours` false alarms, whose scores these are."""
    return threshold_with(scores, allowed_alarms(hours, per_hour))


def choose_threshold(held: HeldOut, max_per_hour: float) -> float:
    """The threshold with the best F1, averaged over neighbouring ones, of those with few enough false alarms.

    Events and wrong boxes of the mixtures count, and false alarms on background and old sounds. At most `max_per_hour`
    of these per hour; where there is less than an hour per alarm, none.
    """
    thresholds = 1 / (1 + np.exp(-THRESHOLD_LOGITS))
    alarms = [held.wrong, held.background] + ([] if held.rehearsal is None else [held.rehearsal])
    wrong = np.concatenate([one.scores for one in alarms])
    found = (held.scores[:, None] > thresholds).sum(0)
    false = (wrong[:, None] > thresholds).sum(0)
    f1 = 2 * found / (found + false + len(held.scores))
    kernel = np.exp(-0.5 * ((THRESHOLD_LOGITS[:, None] - THRESHOLD_LOGITS[None, :]) / SMOOTHING_LOGITS) ** 2)
    smooth = f1 @ (kernel / kernel.sum(axis=0))
    lowest = held.threshold_at(max_per_hour)
    is_allowed = thresholds >= lowest
    if not is_allowed.any():
        return lowest
    best = int(np.where(is_allowed, smooth, -1.0).argmax())
    return float(thresholds[best])


@dataclass
class CrossFitted:
    """Every fold at the threshold that the other folds chose: nothing was chosen on what is counted."""

    recall: Recall
    background: FalseAlarms
    rehearsal: FalseAlarms | None


def cross_fitted(held: HeldOut, num_folds: int, choose: Callable[[HeldOut], float]) -> CrossFitted:
    """Counts over folds.

    Args:
        held: scores of all folds.
        num_folds: at least 2.
        choose: from the scores of the other folds to a threshold.
    """
    found, background, old = 0, 0, 0
    for fold in range(num_folds):
        threshold = choose(held.of_folds([other for other in range(num_folds) if other != fold]))
        own = held.of_folds([fold])
        found += int((own.scores > threshold).sum())
        background += int((own.background.scores > threshold).sum())
        old += 0 if own.rehearsal is None else int((own.rehearsal.scores > threshold).sum())
    recordings = len(np.unique(held.groups))
    rehearsal = None if held.rehearsal is None else FalseAlarms(old, float(held.rehearsal.hours.sum()))
    return CrossFitted(
        Recall(found, len(held.scores), recordings),
        FalseAlarms(background, float(held.background.hours.sum())),
        rehearsal,
    )


__all__ = [
    "Alarms",
    "CrossFitted",
    "FLOOR",
    "HeldOut",
    "RATES_PER_HOUR",
    "choose_threshold",
    "cross_fitted",
    "judge_columns",
    "new_class_parameters",
    "score_set",
    "threshold_at",
]
