"""How far probabilities can be believed: calibration error, proper scores and temperature scaling.

Multi-label arrays are judged decision by decision: every probability with its 0/1 label, flattened.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

# 1 / T is searched for in this range of T; beyond it the labels are separable or contradict the logits
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0


@dataclass(frozen=True)
class ReliabilityBins:
    """Confidence and accuracy per bin, (bins,) each; nan where a bin is empty.

    Attributes:
        edges: (bins + 1,) borders in [0, 1].
        count: decisions in the bin.
        confidence: their mean confidence.
        accuracy: their mean accuracy.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability_bins(
    probabilities: Any,
    labels: Any,
    num_bins: int = 15,
    variant: Literal["confidence", "positive_class"] = "confidence",
    closed: Literal["right", "left"] = "right",
) -> ReliabilityBins:
    """What a reliability diagram draws. Arguments, errors and source as in `expected_calibration_error`."""
    probability, label = _check_decisions(probabilities, labels)
    if not (isinstance(num_bins, int) and num_bins >= 1):
        raise ValueError(f"num_bins must be a whole number >= 1, got {num_bins!r}; 15 is usual")
    if variant not in ("confidence", "positive_class"):
        raise ValueError(f"variant must be 'confidence' or 'positive_class', got {variant!r}; name one of the two")
    if closed not in ("right", "left"):
        raise ValueError(f"closed must be 'right' or 'left', got {closed!r}; 'right' follows Guo et al.")
    confidence, accuracy = probability, label
    if variant == "confidence":
        confidence = np.maximum(probability, 1 - probability)
        accuracy = ((probability >= 0.5) == (label == 1)).astype(np.float64)
    edges = np.linspace(0, 1, num_bins + 1)
    # the index of the last edge below the value (right-closed) or not above it (left-closed)
    side = "left" if closed == "right" else "right"
    index = np.clip(np.searchsorted(edges, confidence, side=side) - 1, 0, num_bins - 1)
    count = np.bincount(index, minlength=num_bins)
    filled = np.where(count > 0, count, np.nan)
    confidence_sum = np.bincount(index, weights=confidence, minlength=num_bins)
    accuracy_sum = np.bincount(index, weights=accuracy, minlength=num_bins)
    return ReliabilityBins(edges, count, confidence_sum / filled, accuracy_sum / filled)


def expected_calibration_error(
    probabilities: Any,
    labels: Any,
    num_bins: int = 15,
    variant: Literal["confidence", "positive_class"] = "confidence",
    closed: Literal["right", "left"] = "right",
) -> float:
    """Expected calibration error in [0, 1]: the mean over decisions of |accuracy - confidence| of their bin.

    Two variants that differ for the same model: `confidence` takes max(p, 1 - p) and whether the decision p >= 0.5 is
    right (Guo et al. for two classes); `positive_class` takes p and the label (torchmetrics' binary calibration
    error). Bins have equal width; `closed="right"` is (low, high] with 0 in the first bin, `closed="left"` is
    [low, high) with 1 in the last. The two differ only for values exactly on an edge.

    Args:
        probabilities: any shape, in [0, 1].
        labels: same shape, 0 or 1.
        num_bins: number of bins.
        variant: "confidence" or "positive_class".
        closed: which border of a bin belongs to it.

    Raises:
        ValueError: for shapes that differ or are empty, values out of range, or an unknown option.

    Source: Naeini, Cooper & Hauskrecht, AAAI 2015; Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    bins = reliability_bins(probabilities, labels, num_bins, variant, closed)
    gap = np.nan_to_num(np.abs(bins.accuracy - bins.confidence))
    return float((bins.count * gap).sum() / bins.count.sum())


def brier_score(probabilities: Any, labels: Any) -> float:
    """Mean of (p - y)^2 in [0, 1] over all decisions.

    Args:
        probabilities: any shape, in [0, 1].
        labels: same shape, 0 or 1.

    Raises:
        ValueError: for shapes that differ or are empty, or values out of range.

    Source: Brier, Verification of Forecasts Expressed in Terms of Probability, 1950 (the one-term form).
    """
    probability, label = _check_decisions(probabilities, labels)
    return float(np.mean((probability - label) ** 2))


def negative_log_likelihood(probabilities: Any, labels: Any, eps: float = 1e-12) -> float:
    """Mean of -[y ln p + (1 - y) ln(1 - p)] in nats over all decisions.

    Args:
        probabilities: any shape, in [0, 1].
        labels: same shape, 0 or 1.
        eps: probabilities are clipped to [eps, 1 - eps], so that one sure error costs at most -ln eps.

    Raises:
        ValueError: for shapes that differ or are empty, values out of range, or an eps outside (0, 0.5).

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.
    """
    probability, label = _check_decisions(probabilities, labels)
    if not 0 < eps < 0.5:
        raise ValueError(f"eps must be in (0, 0.5), got {eps}; 1e-12 is usual")
    clipped = np.clip(probability, eps, 1 - eps)
    return float(-np.mean(label * np.log(clipped) + (1 - label) * np.log(1 - clipped)))


def _check_decisions(probabilities: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both flattened to (decisions,) float64."""
    probability = np.asarray(probabilities, dtype=np.float64)
    label = np.asarray(labels, dtype=np.float64)
    if probability.shape != label.shape or probability.size == 0:
        raise ValueError(
            f"probabilities and labels must have one non-empty shape, got {probability.shape} and {label.shape}; "
            "give one 0/1 label per probability"
        )
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError(
            f"probabilities must be in [0, 1], got values from {probability.min()} to {probability.max()}; "
            "apply the sigmoid to logits first"
        )
    _check_binary(label)
    return probability.ravel(), label.ravel()


def _check_binary(label: np.ndarray) -> None:
    wrong = label[(label != 0) & (label != 1)]
    if len(wrong) > 0:
        raise ValueError(f"labels must be 0 or 1, got {wrong.flat[0]}; threshold soft labels first")


def fit_temperature(logits: Any, labels: Any) -> float:
    """The one temperature T > 0 for which sigmoid(logits / T), or softmax(logits / T), has the lowest mean NLL.

    The NLL is convex in 1 / T, so T is found by bisection on its slope, to the last bits. Where no finite positive T
    is best, T is clamped and a warning says so: to 0.01 if the NLL still falls there (the logits separate the labels),
    to 100 if it still falls there (the logits say nothing or the opposite of the labels).

    Args:
        logits: any shape for independent (sigmoid) classes; (items, classes) for softmax.
        labels: the shape of logits with 0 or 1 for sigmoid; (items,) whole class indices for softmax.

    Returns:
        T in [0.01, 100]; divide logits by it.

    Raises:
        ValueError: for shapes that fit neither form, empty input, logits that are not finite, or labels out of range.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    logit = np.asarray(logits, dtype=np.float64)
    label = np.asarray(labels)
    is_softmax = logit.ndim == 2 and label.shape == logit.shape[:1]
    if logit.size == 0 or not (is_softmax or label.shape == logit.shape):
        raise ValueError(
            f"labels must have the shape of logits (sigmoid) or (items,) (softmax), got {label.shape} for logits "
            f"{logit.shape}; give one label per logit or one class index per row"
        )
    if not np.isfinite(logit).all():
        raise ValueError("logits must be finite, got nan or infinity; replace them before the fit")
    if is_softmax:
        target = _check_class_indices(label, logit.shape[1])
    else:
        _check_binary(label)
        target = label.astype(np.float64)
    return _bisect_temperature(logit, target, is_softmax)


def _check_class_indices(label: np.ndarray, num_classes: int) -> np.ndarray:
    """(items,) indices to (items, classes) one-hot rows."""
    wrong = label[~np.isin(label, np.arange(num_classes))]
    if len(wrong) > 0:
        raise ValueError(f"labels must be class indices 0..{num_classes - 1}, got {wrong[0]}; count classes from 0")
    return np.eye(num_classes)[label.astype(np.int64)]


def _nll_slope(beta: float, logit: np.ndarray, target: np.ndarray, is_softmax: bool) -> float:
    """Derivative by beta = 1 / T of the summed NLL, per logit."""
    scaled = beta * logit
    if is_softmax:
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probability = weights / weights.sum(axis=1, keepdims=True)
    else:
        # tanh form: exp would overflow for large negative logits
        probability = 0.5 * (1 + np.tanh(0.5 * scaled))
    return float(np.mean(logit * (probability - target)))


def _bisect_temperature(logit: np.ndarray, target: np.ndarray, is_softmax: bool) -> float:
    if _nll_slope(1 / MAX_TEMPERATURE, logit, target, is_softmax) >= 0:
        _warn_clamped(MAX_TEMPERATURE, "carry no information on the labels or contradict them")
        return MAX_TEMPERATURE
    if _nll_slope(1 / MIN_TEMPERATURE, logit, target, is_softmax) <= 0:
        _warn_clamped(MIN_TEMPERATURE, "separate the labels without error")
        return MIN_TEMPERATURE
    low, high = -math.log(MAX_TEMPERATURE), -math.log(MIN_TEMPERATURE)
    # the range of ln(1 / T), 9.2, halved 55 times is below the spacing of float64 at T = 1
    for _ in range(55):
        middle = 0.5 * (low + high)
        if _nll_slope(math.exp(middle), logit, target, is_softmax) < 0:
            low = middle
        else:
            high = middle
    return math.exp(-0.5 * (low + high))


def _warn_clamped(temperature: float, reason: str) -> None:
    warnings.warn(
        f"temperature clamped to {temperature:g}, the NLL has no minimum inside {MIN_TEMPERATURE:g}.."
        f"{MAX_TEMPERATURE:g}: the logits {reason}; calibrate on more or other data",
        stacklevel=4,
    )
