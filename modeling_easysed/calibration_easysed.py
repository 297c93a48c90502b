"""Calibration that travels with the checkpoint: from evidence to confidence, intervals and unfamiliarity.

`training/calibrate.py` fits it on held-out recordings and writes it into config.json:

    {"id", "date", "labels", "fitted_on": {...}, "doubt_limits": {...},
     "exits": {"4": {"temperature", "familiarity": {...}, "settings": {"mc+shifts": {"classes", "border", ...}}}}}

The confidence is a logistic map of the score, the least convinced exit, the unfamiliarity and the entropy inside, with
coefficients of its own for every class, drawn towards those of all classes; the map's own uncertainty pulls it towards
1/2."""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .evidence_easysed import Evidence, to_logit

LEVEL = 0.9  # of all intervals
QUANTILE = 1.6448536269514722  # of the normal distribution, for two-sided intervals of that level
FEATURES = ("one", "score", "weakest_exit", "unfamiliarity", "entropy")
ENTROPY_SCALE = 3.0  # brings the entropy, at most 0.69 nats, to the size of the other features
SMALLEST_RISE_SHARE = 0.1  # of a border's rise that counts as its spread where the samples agree


class CalibrationError(ValueError):
    """A calibration that does not belong to the model or lacks what was asked of it; the message is one line."""


@dataclass
class Judgement:
    """What calibration says of one candidate: see `Event`; unfamiliarity in deviations from target events' median."""

    confidence: float
    confidence_low: float
    confidence_high: float
    onset_low: float
    onset_high: float
    offset_low: float
    offset_high: float
    unfamiliarity: float
    is_unfamiliar: bool
    seems_unfamiliar: bool
    is_calibrated: bool


def setting_name(method: str, shifts: int) -> str:
    """The key of a setting: the number of passes, seeds and further shifts share one map."""
    return method + ("+shifts" if shifts > 0 else "")


def pack(values: np.ndarray) -> str:
    """A float32 or uint16 array as text for config.json."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def unpack(text: str, dtype: Any = np.float32) -> np.ndarray:
    """What `pack` made, flat."""
    return np.frombuffer(base64.b64decode(text), dtype=dtype)


def calibration_id(calibration: dict[str, Any]) -> str:
    """Hash of everything but the id and the date."""
    kept = {key: value for key, value in calibration.items() if key not in ("id", "date")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


class Familiarity(NamedTuple):
    """Relative Mahalanobis distance of an embedding to a class, in deviations from target events' median.

    Source: Lee et al. 2018, A Simple Unified Framework, NeurIPS; Ren et al. 2021, A Simple Fix to Mahalanobis Distance.
    """

    quadratic: np.ndarray  # (size, size)
    linear: np.ndarray  # (classes, size)
    constant: np.ndarray  # (classes,)
    median: float
    spread: float
    limit: float  # beyond it an event is never accepted: few right events lie there
    doubt_limit: float  # beyond it an event that is not accepted is called unfamiliar: more right events lie there

    @classmethod
    def load(cls, saved: dict[str, Any]) -> "Familiarity":
        size, num_classes = saved["size"], saved["num_classes"]
        flat = unpack(saved["distance"]).astype(np.float64)
        upper, linear, constant = np.split(flat, [size * (size + 1) // 2, len(flat) - num_classes])
        quadratic = np.zeros((size, size))
        quadratic[np.triu_indices(size)] = upper
        quadratic = quadratic + np.triu(quadratic, 1).T
        numbers = (saved["median"], saved["spread"], saved["limit"], saved["doubt_limit"])
        return cls(quadratic, linear.reshape(num_classes, size), constant, *numbers)

    def save(self) -> dict[str, Any]:
        """As `load` reads it."""
        upper = self.quadratic[np.triu_indices(len(self.quadratic))]
        flat = np.concatenate([upper, self.linear.ravel(), self.constant]).astype(np.float32)
        names = ("median", "spread", "limit", "doubt_limit")
        return {
            "size": len(self.quadratic),
            "num_classes": len(self.constant),
            "distance": pack(flat),
            **{name: float(f"{getattr(self, name):.6g}") for name in names},
        }

    def measure(self, embeddings: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Unfamiliarity (events,) of embeddings (events, size) taken for classes (events,)."""
        squares = (embeddings @ self.quadratic * embeddings).sum(1)
        distance = squares + (embeddings * self.linear[classes]).sum(1) + self.constant[classes]
        return (distance - self.median) / self.spread


class Calibration:
    """One checkpoint's calibration, ready to judge.

    Raises:
        CalibrationError: when it is of another class set, or a part is missing.
    """

    def __init__(self, saved: dict[str, Any], labels: Sequence[str]) -> None:
        if list(saved.get("labels", [])) != list(labels):
            raise CalibrationError(
                f"calibration must be of the model's classes {list(labels)}, got one of {saved.get('labels')}: "
                "run training/calibrate.py for this checkpoint"
            )
        missing = [name for name in ("id", "exits", "fitted_on") if name not in saved]
        if missing:
            raise CalibrationError(f"calibration lacks {missing}: run training/calibrate.py for this checkpoint")
        self.saved, self.labels, self.id = saved, list(labels), str(saved["id"])
        self._maps: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        self.familiarity = {int(k): Familiarity.load(own["familiarity"]) for k, own in saved["exits"].items()}

    def check(self, exit_index: int, setting: str) -> dict[str, Any]:
        """What was fitted for an exit and a setting; CalibrationError when nothing was."""
        settings = self.saved["exits"].get(str(exit_index), {}).get("settings", {})
        if setting not in settings:
            have = ", ".join(settings) if settings else "none"
            raise CalibrationError(f"calibration has no map for exit {exit_index} with {setting} (has: {have})")
        return settings[setting]

    def temperature(self, exit_index: int) -> float:
        """Divisor of the frame logits of an exit."""
        return float(self.saved["exits"][str(exit_index)]["temperature"])

    def temperatures(self, frame_exits: np.ndarray) -> np.ndarray:
        """(frames,) the temperature of the exit (frames,) that spoke there."""
        deepest = int(np.max(frame_exits, initial=0))
        spoke = np.bincount(frame_exits, minlength=deepest + 1) > 0
        return np.array([self.temperature(index) if spoke[index] else 1.0 for index in range(deepest + 1)])[frame_exits]

    def doubt_limits(self, num_exits: int) -> list[float]:
        """Of exits 1 to num_exits - 1, for `sample_window`."""
        limits = self.saved.get("doubt_limits", {})
        return [float(limits.get(str(index), 0.0)) for index in range(1, num_exits)]

    def floor(self, exit_index: int, setting: str) -> float:
        """Candidates with a lower score were not calibrated and are not reported."""
        return float(self.check(exit_index, setting)["floor"])

    def judge(self, evidence: Sequence[Evidence], setting: str, duration: float) -> list[Judgement]:
        """Confidence, intervals and unfamiliarity of candidates; intervals lie within 0 and `duration` seconds."""
        return [self._judge(one, setting, duration) for one in evidence]

    def _judge(self, one: Evidence, setting: str, duration: float) -> Judgement:
        fitted = self.check(one.exit_index, setting)
        familiarity = self.familiarity[one.exit_index]
        unfamiliarity = familiarity.measure(one.embedding[None], np.array([one.box.class_index]))[0]
        own = fitted["classes"].get(self.labels[one.box.class_index])
        key = (one.exit_index, setting, None if own is None else one.box.class_index)
        if key not in self._maps:
            self._maps[key] = map_of_class(fitted if own is None else own)
        coefficients, covariance = self._maps[key]
        features = feature_row(one, float(unfamiliarity))
        middle, variance = float(features @ coefficients), float(features @ covariance @ features)
        moved = coefficients[1] ** 2 * (one.sample_spread**2 + one.shift_spread**2)
        half = QUANTILE * fitted["interval_factor"] * math.sqrt(variance + moved)
        confidence = moderated(middle, variance)
        outwards, inwards, floor = (fitted["border"][name] for name in ("outwards", "inwards", "floor"))
        borders = []
        for name, time, sides in (
            ("onset", one.box.onset, (outwards, inwards)),
            ("offset", one.box.offset, (-inwards, -outwards)),
        ):
            scale = border_scale(getattr(one, f"{name}_spread"), getattr(one, f"{name}_rise"), floor)
            low, high = (time + scale * side for side in sides)
            borders += [min(max(low, 0.0), time), max(min(high, duration), time)]
        return Judgement(
            confidence,
            min(confidence, _sigmoid(middle - half)),
            max(confidence, _sigmoid(middle + half)),
            *borders,
            float(unfamiliarity),
            bool(unfamiliarity > familiarity.limit),
            bool(unfamiliarity > familiarity.doubt_limit),
            own is not None and not own.get("uncalibrated", False),
        )


def feature_row(one: Evidence, unfamiliarity: float) -> np.ndarray:
    """(features,) as `FEATURES` names them; unfamiliarity clipped to [-3, 6], beyond which nothing was seen."""
    far = float(np.clip(unfamiliarity, -3.0, 6.0))
    return np.array([1.0, float(to_logit(one.box.score)), one.weakest_exit, far, ENTROPY_SCALE * one.total])


def map_of_class(saved: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (features,) and their covariance (features, features)."""
    size = len(FEATURES)
    covariance = np.zeros((size, size))
    covariance[np.triu_indices(size)] = saved["covariance"]
    return np.array(saved["coefficients"]), covariance + np.triu(covariance, 1).T


def moderated(middle: float, variance: float) -> float:
    """Mean of sigmoid(z) for normal z. Source: MacKay 1992, The Evidence Framework, equation 12."""
    return _sigmoid(middle / math.sqrt(1.0 + math.pi * variance / 8.0))


def border_scale(spread: float, rise: float, floor: float) -> float:
    """What a border's error is measured in, seconds: spread over samples, a share of its rise, and a floor."""
    return math.sqrt(spread**2 + (SMALLEST_RISE_SHARE * rise) ** 2 + floor**2)


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value)) if value >= 0 else math.exp(value) / (1.0 + math.exp(value))


__all__ = [
    "Calibration",
    "CalibrationError",
    "Familiarity",
    "Judgement",
    "border_scale",
    "calibration_id",
    "feature_row",
    "map_of_class",
    "moderated",
    "pack",
    "setting_name",
    "unpack",
]
