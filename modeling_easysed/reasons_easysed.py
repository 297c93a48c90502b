"""Why an event is doubtful, in plain words: what was measured on it against what right calibration events show."""

from collections.abc import Sequence

import numpy as np

from .calibration_easysed import Judgement
from .evidence_easysed import Evidence

SHARE = 0.05  # of the right calibration events that a single reason may be given for
LIMITS = {  # name in the config: (attribute of Evidence, doubtful when larger)
    "disagreement": ("sample_spread", True),
    "shift": ("shift_spread", True),
    "exits": ("exit_spread", True),
    "contrast": ("contrast_db", False),
    "overlap": ("overlap", True),
}
SENTENCES = {
    "disagreement": "model disagreement: the passes give it different levels",
    "shift": "unstable under time shift: a few hundredths of a second change its level",
    "exits": "exits disagree: shallow and deep layers give it different levels",
    "contrast": "noisy: it hardly rises above the background",
    "overlap": "overlapping sound: another class sounds at the same time",
}
UNFAMILIAR = "unfamiliar sound: unlike what the model was trained on"
CUT_OFF = "cut off: it touches the start or end of the recording"
UNCALIBRATED = "uncalibrated class: too few labelled events, judged like all classes together"
WEAK = "weak evidence: confidence {confidence}, {asked}"
NEEDED, NEVER_ACCEPTED = "{needed} is needed to be accepted", "its class is accepted at no confidence"
INPUT_WORDS = (
    "silent",
    "too quiet",
    "clipped",
    "band-limited",
    "too short",
    "damaged",
    "out of range",
    "off centre",
    "noisy",
)
SMALLEST_LIMIT = 1e-9  # a spread of nothing, as without samples, is no disagreement


def fit_limits(right: Sequence[Evidence]) -> dict[str, float]:
    """Limits for config.json: what `SHARE` of the right events passes; overlap at least one half."""
    limits = {}
    for name, (attribute, is_upper) in LIMITS.items():
        values = [getattr(one, attribute) for one in right]
        limits[name] = float(np.quantile(values, 1 - SHARE if is_upper else SHARE))
    limits["overlap"] = max(limits["overlap"], 0.5)
    return {name: round(value, 5) for name, value in limits.items()}


def reasons_for(
    one: Evidence,
    judgement: Judgement,
    decision: str,
    limits: dict[str, float],
    recording_warnings: Sequence[str],
    duration: float,
    needed: float,
) -> list[str]:
    """Sentences on one event, the gravest first; empty for an event without doubt.

    Args:
        one, judgement, decision: the event.
        limits: what `fit_limits` gave.
        recording_warnings: of the input, see `all_warnings`.
        duration: seconds of the recording.
        needed: confidence from which an event of its class is accepted.
    """
    is_unfamiliar = judgement.is_unfamiliar or (judgement.seems_unfamiliar and decision != "accept")
    reasons = [UNFAMILIAR] if is_unfamiliar else []
    for name, (attribute, is_upper) in LIMITS.items():
        value, limit = getattr(one, attribute), limits[name]
        if value > max(limit, SMALLEST_LIMIT) if is_upper else value < limit:
            reasons.append(SENTENCES[name])
    if one.box.onset <= 0.0 or one.box.offset >= duration:
        reasons.append(CUT_OFF)
    reasons += [warning for warning in recording_warnings if warning.startswith(INPUT_WORDS)]
    if not judgement.is_calibrated:
        reasons.append(UNCALIBRATED)
    if not reasons and decision != "accept":
        told_apart = (n for n in range(2, 6) if round(needed, n) > round(judgement.confidence, n))
        digits = next(told_apart, 6)  # 0.9884 where 0.9912 is needed
        asked = NEEDED.format(needed=f"{needed:.{digits}f}") if needed <= 1 else NEVER_ACCEPTED
        reasons.append(WEAK.format(confidence=f"{judgement.confidence:.{digits}f}", asked=asked))
    return reasons


__all__ = ["fit_limits", "reasons_for"]
