"""Accept, review or reject, from a goal that the user states, with a guarantee where the calibration supports one.

The table of a calibration holds the confidence of every candidate on the calibration recordings, each judged by a map
that was fitted without its recording. The exchangeable unit is the recording, never the event or the frame: the
guarantees hold for recordings like those of the calibration, and as far as the map that is used, fitted on all of them,
judges like those ten that the table was made with.

    precision        learn then test: fixed sequence of thresholds, betting p-values (Angelopoulos et al. 2021;
                     Waudby-Smith & Ramdas 2024), so that the level holds with probability 1 - RISK
    false alarms     conformal risk control (Angelopoulos et al. 2024, ICLR): the mean is at most the goal
    recall           the same, for the share of a recording's events that is missed
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .calibration_easysed import pack, unpack

RISK = 0.1  # chance that a learn-then-test guarantee fails
DEFAULT_PRECISION = 0.9
REVIEW_CONFIDENCE = 0.3  # below it, more than two of three are wrong: not worth a person's time
ENOUGH = 3  # times as many accepted events as could prove the precision without a single wrong one
LARGEST_BET = 0.75  # of the capital, against the largest loss
NEVER = 1.01  # a threshold that no confidence reaches
CONFIDENCE_STEPS = 10_000
THRESHOLDS = np.round(np.arange(0.99, 0.0, -0.01), 2)


Answer = tuple[float, str, list[str]]  # threshold, sentence, and a warning where nothing can be guaranteed


@dataclass(frozen=True)
class Goal:
    """What the user asks of accepted events; None = not asked.

    Attributes:
        min_precision: share of accepted events that are right, in (0, 1).
        min_recall: share of the true events that are reported (accepted or for review), in (0, 1).
        max_false_alarms_per_hour: wrong accepted events per hour, > 0.

    Raises:
        ValueError: for a value outside its range.
    """

    min_precision: float | None = None
    min_recall: float | None = None
    max_false_alarms_per_hour: float | None = None

    def __post_init__(self) -> None:
        for name in ("min_precision", "min_recall"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < 1):
                raise ValueError(f"{name} must be in (0, 1), got {value!r}; 0.9 is usual")
        value = self.max_false_alarms_per_hour
        if value is not None and not (_is_number(value) and 0 < value < math.inf):
            raise ValueError(f"max_false_alarms_per_hour must be a number > 0, got {value!r}")

    @property
    def is_default(self) -> bool:
        return self.min_precision is self.min_recall is self.max_false_alarms_per_hour is None


DEFAULT_GOAL = Goal()


@dataclass(frozen=True)
class Table:
    """Candidates of the calibration recordings: confidence, class, right or not, recording; (candidates,) each.

    Attributes:
        unfamiliar: (candidates,), such an event is never accepted.
        num_recordings: all, also those without candidates.
        duration_s: of all recordings.
        num_events: true events per recording, (recordings,).
    """

    confidence: np.ndarray
    label: np.ndarray
    right: np.ndarray
    recording: np.ndarray
    unfamiliar: np.ndarray
    num_recordings: int
    duration_s: float
    num_events: np.ndarray

    @classmethod
    def load(cls, saved: dict[str, Any]) -> "Table":
        """From what `save` gave."""
        rows = unpack(saved["candidates"], np.uint16).reshape(-1, 4).astype(np.int64)
        events = unpack(saved["num_events"], np.uint16).astype(np.int64)
        flags = rows[:, 2]
        columns = (rows[:, 0] / CONFIDENCE_STEPS, rows[:, 1], flags % 2 > 0, rows[:, 3], flags >= 2)
        return cls(*columns, len(events), saved["seconds"], events)

    def save(self) -> dict[str, Any]:
        """For config.json: eight bytes a candidate, the confidence in ten-thousandths."""
        steps = np.round(self.confidence * CONFIDENCE_STEPS)
        rows = np.stack([steps, self.label, self.right + 2 * self.unfamiliar, self.recording], axis=1)
        return {
            "candidates": pack(rows.astype(np.uint16)),
            "num_events": pack(self.num_events.astype(np.uint16)),
            "seconds": round(self.duration_s, 3),
        }

    def accepted(self, threshold: float | np.ndarray) -> np.ndarray:
        """Which candidates a threshold, one for all or one for each, accepts; (candidates,)."""
        return (self.confidence >= threshold) & ~self.unfamiliar

    def per_recording(self, values: np.ndarray) -> np.ndarray:
        """Sums (recordings,) of values (candidates,)."""
        return np.bincount(self.recording, values, minlength=self.num_recordings)


@dataclass
class Rule:
    """Thresholds on the confidence, and what is promised.

    Attributes:
        accept: (classes,) an event is accepted when its confidence is at least this and it is not unfamiliar.
        review: an event is for review when it is not accepted and its confidence is at least this.
        sentences: goal, level, guarantee, number of recordings, assumption, share kept; for receipts and people.
        warnings: goals that the calibration cannot support.
    """

    accept: np.ndarray
    review: float
    sentences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def decide(self, confidence: float, class_index: int, is_unfamiliar: bool) -> str:
        """ "accept", "review" or "reject"."""
        if confidence >= self.accept[class_index] and not is_unfamiliar:
            return "accept"
        return "review" if confidence >= self.review else "reject"


def make_rule(goal: Goal, table: Table, labels: Sequence[str], outside_threshold: float) -> Rule:
    """The rule for a goal.

    Args:
        goal: what is asked. Where nothing is asked of accepted events, a precision of 0.9 is.
        table: of the setting in use.
        labels: class names.
        outside_threshold: no lower confidence is ever accepted: what kept sounds outside the classes below one accepted
            event per hour when the calibration was fitted.
    """
    is_asked = goal.min_precision is not None or goal.max_false_alarms_per_hour is not None
    precision = goal.min_precision if is_asked else DEFAULT_PRECISION
    answers: list[Answer] = []
    if precision is not None:
        answers.append(precision_threshold(table, precision, at_least=outside_threshold))
    if goal.max_false_alarms_per_hour is not None:
        answers.append(false_alarm_threshold(table, goal.max_false_alarms_per_hour))
    accept = max(outside_threshold, *(threshold for threshold, *_ in answers))
    review = REVIEW_CONFIDENCE
    if goal.min_recall is not None:
        answers.append(recall_threshold(table, goal.min_recall))
        review = answers[-1][0]
    if goal.min_recall is None or not is_asked:
        accept = max(accept, review)
    review = min(review, accept)
    per_class = np.full(len(labels), accept)
    if precision is not None:
        per_class = class_thresholds(table, precision, accept, len(labels))
    sentences = [sentence for _, sentence, _ in answers]
    usual = float(np.quantile(per_class, 0.5, method="lower"))
    stricter = [name for name, own in zip(labels, per_class, strict=True) if own > usual]
    if stricter and usual < NEVER:
        sentences.append(f"more is asked, without guarantee, where a class fell short alone: {', '.join(stricter)}")
    if usual < NEVER:
        why = " (lower ones let sounds of no target class in)" if usual == outside_threshold else ""
        sentences.append(f"events are accepted from confidence {usual:.2f} on{why}")
    kept = table.accepted(per_class[table.label]).sum() / max(1, (table.confidence >= review).sum())
    sentences.append(f"{100 * kept:.0f} % of the reported events of the calibration recordings are accepted")
    return Rule(per_class, review, sentences, [text for *_, warnings in answers for text in warnings])


# ---- one goal: threshold, sentence, and a warning where the calibration cannot support it ----------------------------


def precision_threshold(table: Table, precision: float, risk: float = RISK, at_least: float = 0.0) -> Answer:
    """Lowest threshold whose accepted events are right in at least `precision` of the cases, with probability 1 - risk.

    Thresholds from `at_least` on are tested, the strictest that accepts enough events for a test first; the first that
    fails ends the sequence. Where none can be guaranteed, the lowest one that held on the
    calibration recordings is taken, and a warning says so.
    """
    chosen, held = None, NEVER
    is_guaranteed = True
    needed = math.ceil(math.log(risk) / math.log(precision))
    for threshold in THRESHOLDS[at_least - 1e-9 < THRESHOLDS]:
        kept = table.accepted(threshold)
        if not kept.any():
            continue
        margins = table.per_recording(np.where(table.right, 1 - precision, -precision) * kept)
        largest = table.per_recording(kept.astype(float)).max()
        if kept.sum() >= ENOUGH * needed:
            is_guaranteed = is_guaranteed and betting_p_value(margins, precision * largest) <= risk
            chosen = threshold if is_guaranteed else chosen
        held = threshold if table.right[kept].mean() >= precision else held
    what = f"accepted events are right in at least {100 * precision:g} % of the cases"
    if chosen is not None:
        return _guaranteed(what, chosen, table, f"with probability {1 - risk:g}")
    return _not_guaranteed(
        what,
        held,
        f"min_precision={precision:g} cannot be guaranteed: needs at least {ENOUGH * needed} labelled events that are "
        f"found, and more where some are wrong, has {int(table.right.sum())} right ones of {len(table.right)}"
        + (f", {int(table.accepted(at_least).sum())} of them from confidence {at_least:g} on" if at_least > 0 else ""),
    )


def false_alarm_threshold(table: Table, per_hour: float) -> Answer:
    """Lowest threshold with a mean of at most `per_hour` wrong accepted events per hour; else as above.

    The bound on a recording's false alarms, which the method wants fixed in advance, is the largest number of wrong
    candidates of a calibration recording.
    """
    goal = per_hour * table.duration_s / 3600 / table.num_recordings
    worst = max(1.0, table.per_recording((~table.right).astype(float)).max())
    chosen, held = None, NEVER
    for threshold in THRESHOLDS:
        wrong = float((table.accepted(threshold) & ~table.right).sum())
        chosen = threshold if (wrong + worst) / (table.num_recordings + 1) <= goal * (1 + 1e-9) else chosen
        held = threshold if wrong / table.num_recordings <= goal else held
    what = f"at most {per_hour:g} false alarms per hour among accepted events"
    needed = math.ceil(worst / goal - 1e-9) - 1
    if chosen is not None:
        return _guaranteed(what, chosen, table, "on average")
    return _not_guaranteed(
        what,
        held,
        f"max_false_alarms_per_hour={per_hour:g} cannot be guaranteed: needs at least {needed} "
        f"labelled recordings without a sure error, has {table.num_recordings}",
    )


def recall_threshold(table: Table, recall: float) -> Answer:
    """Highest threshold at which the mean share of a recording's events that is missed is at most 1 - recall."""
    reached = 0.0
    what = f"at least {100 * recall:g} % of the events are reported"
    for threshold in THRESHOLDS:
        found = table.per_recording(((table.confidence >= threshold) & table.right).astype(float))
        missed = np.where(table.num_events > 0, 1 - found / np.maximum(table.num_events, 1), 0.0)
        if (np.maximum(missed, 0).sum() + 1) / (table.num_recordings + 1) <= 1 - recall + 1e-9:
            return _guaranteed(what, threshold, table, "on average")
        reached = 1 - missed.mean()
    return _not_guaranteed(
        what,
        THRESHOLDS[-1],
        f"min_recall={recall:g} cannot be guaranteed: needs at least {math.ceil(1 / (1 - recall) - 1e-9) - 1} labelled "
        f"recordings, has {table.num_recordings}, whose events are found to {100 * reached:.0f} % at any confidence",
    )


def _guaranteed(what: str, threshold: float, table: Table, kind: str) -> Answer:
    promise = f"guaranteed {kind} for recordings exchangeable with the {table.num_recordings} of the calibration"
    return float(threshold), f"{what}: confidence >= {threshold:.2f}, {promise}", []


def _not_guaranteed(what: str, threshold: float, warning: str) -> Answer:
    how = "at no confidence" if threshold >= NEVER else f"confidence >= {threshold:.2f}"
    return float(threshold), f"{what}: {how}, without guarantee", [warning]


def class_thresholds(table: Table, precision: float, accept: float, num_classes: int) -> np.ndarray:
    """(classes,) at least `accept`; more where a class alone fell short of the precision in the calibration."""
    found = np.full(num_classes, accept)
    for label in range(num_classes):
        own = table.label == label
        for threshold in THRESHOLDS[accept - 1e-9 < THRESHOLDS][::-1]:
            kept = own & table.accepted(threshold)
            if not kept.any() or table.right[kept].mean() >= precision:
                found[label] = max(accept, float(threshold))
                break
        else:
            found[label] = max(accept, NEVER if (own & table.accepted(accept)).any() else accept)
    return found


def betting_p_value(margins: np.ndarray, largest_loss: float) -> float:
    """p-value against "the mean of bounded margins is at most 0", valid for any distribution and any number.

    A gambler bets on every recording in turn; under the hypothesis the capital grows beyond 1 / p with probability at
    most p. Bets follow the mean and variance of the recordings before.

    Args:
        margins: (recordings,) at least -largest_loss, exchangeable.
        largest_loss: > 0.

    Source: Waudby-Smith & Ramdas 2024, Estimating Means of Bounded Random Variables by Betting, JRSS-B, section 4.
    """
    scaled = margins / largest_loss
    order = np.random.default_rng(0).permutation(len(scaled))  # a fixed order: exchangeable recordings have none
    capital, best, total, squares = 0.0, 0.0, 0.0, 0.25
    for count, value in enumerate(scaled[order], start=1):
        mean, variance = total / count, squares / count
        bet = min(max(mean / (variance + mean**2), 0.0), LARGEST_BET)
        capital += math.log1p(bet * value)
        best = max(best, capital)
        total += value
        squares += (value - total / (count + 1)) ** 2
    return math.exp(-best)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


__all__ = [
    "DEFAULT_GOAL",
    "DEFAULT_PRECISION",
    "Goal",
    "NEVER",
    "REVIEW_CONFIDENCE",
    "RISK",
    "Rule",
    "Table",
    "make_rule",
]
