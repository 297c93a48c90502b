"""What `calibrate.py` fits: temperatures, familiarity, the maps to confidence, border intervals, exit limits.

Plain numpy on the evidence of candidates; every function is small enough to check by hand."""

from dataclasses import dataclass

import numpy as np
from candidates import Candidates

from modeling_easysed.calibration_easysed import (
    FEATURES,
    LEVEL,
    QUANTILE,
    Familiarity,
    border_scale,
    feature_row,
    moderated,
)
from modeling_easysed.decisions_easysed import Table

# Precision (1 / variance) of the normal priors. The coefficients of all classes together are nearly free; those of a
# class may differ in the intercept, in the slope of the score and nowhere else. Chosen on `validation` by
# cross-validation over the clips that were mixed (clips recur in several recordings, so folds over recordings favour
# freer classes): the strongest pull towards all classes whose NLL was within one standard error of the best.
POOLED_PRECISION = np.array([1e-4, 1e-3, 0.3, 0.3, 0.3])
CLASS_PRECISION = {0: 30.0, 1: 100.0}
MIN_CLASS_EVENTS = 10  # right candidates; with fewer, a class has the map of all classes and is marked uncalibrated
NUM_FOLDS = 10
UNFAMILIAR_SHARE = 0.05  # of right target events that are too far from training to be accepted
DOUBT_SHARE = 0.2  # of right target events with a sure score that are called unfamiliar when they are not accepted
SURE_SCORE = 0.5
BORDER_FLOOR_S = 0.02
NUM_BOOTSTRAPS = 300
WIDENING = 1.0 + np.arange(0, 21) * 0.1
GROUP_SIZE = 30
RIDGE = 1e-3  # share of the mean variance added to every direction of a covariance


# ---- familiarity -----------------------------------------------------------------------------------------------------


def fit_familiarity(embeddings: np.ndarray, labels: np.ndarray, num_classes: int) -> Familiarity:
    """Distances of embeddings (events, size) of training events; median, spread and limit are set by `set_limit`."""
    present = [label for label in range(num_classes) if (labels == label).any()]
    centre = embeddings.mean(0)
    means = np.stack([embeddings[labels == k].mean(0) if k in present else centre for k in range(num_classes)])
    within = _precision(embeddings - means[labels])
    overall = _precision(embeddings - centre)
    linear = -2 * means @ within + 2 * overall @ centre
    constant = np.einsum("ki,ij,kj->k", means, within, means) - centre @ overall @ centre
    return Familiarity(within - overall, linear, constant, 0.0, 1.0, 0.0, 0.0)


def _precision(residuals: np.ndarray) -> np.ndarray:
    covariance = residuals.T @ residuals / len(residuals)
    ridge = RIDGE * np.trace(covariance) / len(covariance)
    return np.linalg.inv(covariance + ridge * np.eye(len(covariance)))


def set_limit(familiarity: Familiarity, embeddings: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Familiarity:
    """Scales distances by those of right target events of held-out recordings, and sets both limits on these."""
    distance = familiarity.measure(embeddings, labels)
    low, median, high = np.quantile(distance, [0.16, 0.5, 0.84])
    spread = max((high - low) / 2, 1e-6)
    sure = distance[scores > SURE_SCORE] if (scores > SURE_SCORE).any() else distance
    limits = (np.quantile(distance, 1 - UNFAMILIAR_SHARE), np.quantile(sure, 1 - DOUBT_SHARE))
    limit, doubt_limit = (float((value - median) / spread) for value in limits)
    return familiarity._replace(median=float(median), spread=float(spread), limit=limit, doubt_limit=doubt_limit)


# ---- the map to confidence -------------------------------------------------------------------------------------------


def unfamiliarities(candidates: Candidates, familiarity: dict[int, Familiarity]) -> np.ndarray:
    """(candidates,) each measured at the exit that spoke."""
    return np.array(
        [
            familiarity[one.exit_index].measure(one.embedding[None], np.array([one.box.class_index]))[0]
            for one in candidates.evidence
        ]
    )


def features_of(candidates: Candidates, unfamiliarity: np.ndarray) -> np.ndarray:
    """(candidates, features)."""
    rows = [feature_row(one, far) for one, far in zip(candidates.evidence, unfamiliarity, strict=True)]
    return np.array(rows).reshape(-1, len(FEATURES))


class HierarchicalMap:
    """Logistic regression with coefficients per class that are drawn towards the pooled ones (normal priors, Laplace).

    Args:
        features: (candidates, features); labels: (candidates,) class; right: (candidates,).
        recording: (candidates,), the unit that is resampled: candidates of a recording are not independent.
        num_classes: of the model.
        weights: (candidates,) how much each counts; None = 1.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        right: np.ndarray,
        recording: np.ndarray,
        num_classes: int,
        weights: np.ndarray | None = None,
    ) -> None:
        self.num_classes = num_classes
        self.num_pooled = features.shape[1]
        design = self._design(features, labels)
        weights = np.ones(len(design)) if weights is None else weights
        precision = np.concatenate([POOLED_PRECISION, np.repeat(list(CLASS_PRECISION.values()), num_classes)])
        self.coefficients = np.zeros(design.shape[1])
        for _ in range(100):
            probability = 1 / (1 + np.exp(-design @ self.coefficients))
            gradient = design.T @ (weights * (probability - right)) + precision * self.coefficients
            information = weights * probability * (1 - probability)
            hessian = (design * information[:, None]).T @ design + np.diag(precision)
            step = np.linalg.solve(hessian, gradient)
            self.coefficients -= step
            if np.abs(step).max() < 1e-9:
                break
        inverse = np.linalg.inv(hessian)
        scores = np.zeros((int(recording.max()) + 1, design.shape[1]))
        np.add.at(scores, recording, design * (weights * (right - probability))[:, None])
        # sandwich over recordings, and the prior's share of the information
        self.covariance = inverse @ (scores.T @ scores + np.diag(precision)) @ inverse

    def _design(self, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        one_hot = np.eye(self.num_classes)[labels]
        own = [one_hot * features[:, [index]] for index in CLASS_PRECISION]
        return np.concatenate([features, *own], axis=1)

    def of_class(self, label: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (features,) and covariance (features, features) of a class; None = of all classes."""
        pick = np.zeros((self.num_pooled, len(self.coefficients)))
        pick[:, : self.num_pooled] = np.eye(self.num_pooled)
        if label is not None:
            for number, index in enumerate(CLASS_PRECISION):
                pick[index, self.num_pooled + number * self.num_classes + label] = 1.0
        return pick @ self.coefficients, pick @ self.covariance @ pick.T

    def confidence(self, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Confidence, middle and variance on the logit scale, (candidates,) each."""
        middle, variance = np.zeros(len(features)), np.zeros(len(features))
        for label in np.unique(labels):
            own = labels == label
            coefficients, covariance = self.of_class(int(label))
            middle[own] = features[own] @ coefficients
            variance[own] = np.einsum("ni,ij,nj->n", features[own], covariance, features[own])
        return np.array([moderated(m, v) for m, v in zip(middle, variance, strict=True)]), middle, variance


@dataclass
class Outside:
    """Candidates on sounds of no target class, all of them wrong: features, labels, recording and weights."""

    features: np.ndarray
    labels: np.ndarray
    recording: np.ndarray
    weights: np.ndarray


def fit_map(
    features: np.ndarray,
    labels: np.ndarray,
    right: np.ndarray,
    recording: np.ndarray,
    num_classes: int,
    outside: Outside | None,
) -> HierarchicalMap:
    """The map of target recordings, together with the outside ones where there are any."""
    right = right.astype(float)
    if outside is None:
        return HierarchicalMap(features, labels, right, recording, num_classes)
    return HierarchicalMap(
        np.concatenate([features, outside.features]),
        np.concatenate([labels, outside.labels]),
        np.concatenate([right, np.zeros(len(outside.labels))]),
        np.concatenate([recording, recording.max(initial=0) + 1 + outside.recording]),
        num_classes,
        np.concatenate([np.ones(len(labels)), outside.weights]),
    )


def cross_fit(
    features: np.ndarray, candidates: Candidates, num_classes: int, outside: Outside | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, middle and variance of every candidate from a map that never saw its recording."""
    order = np.random.default_rng(0).permutation(len(candidates.files))
    fold = np.empty(len(order), dtype=int)
    fold[order] = np.arange(len(order)) % min(NUM_FOLDS, len(order))
    own = fold[candidates.recording]
    results = np.zeros((3, len(features)))
    for number in np.unique(own):
        rest, held = own != number, own == number
        labels, right = candidates.label, candidates.right
        fitted = fit_map(features[rest], labels[rest], right[rest], candidates.recording[rest], num_classes, outside)
        results[:, held] = fitted.confidence(features[held], labels[held])
    return results[0], results[1], results[2]


def groups_covered(confidence: np.ndarray, low: np.ndarray, high: np.ndarray, right: np.ndarray) -> float:
    """Share of groups whose observed share of right ones agrees with the intervals of their confidence.

    Groups hold `GROUP_SIZE` candidates of neighbouring confidence. The observed share of a group has a binomial error
    of its own, which is added to the interval's half width in quadrature: intervals of the right width are met at
    their level.

    Args:
        confidence, low, high: (candidates,), with low <= confidence <= high.
        right: (candidates,).
    """
    order = np.argsort(confidence, kind="stable")
    groups = np.array_split(order, max(1, len(order) // GROUP_SIZE))
    inside = 0
    for group in groups:
        share, mean = right[group].mean(), confidence[group].mean()
        half = (mean - low[group].mean()) if share < mean else (high[group].mean() - mean)
        # as if one more right and one more wrong one had been seen: a share of 0 or 1 is uncertain as well
        smoothed = (mean * len(group) + 1) / (len(group) + 2)
        error = QUANTILE * np.sqrt(smoothed * (1 - smoothed) / len(group))
        inside += abs(share - mean) <= np.hypot(half, error)
    return inside / len(groups)


def widen_until_covered(confidence: np.ndarray, half_width: np.ndarray, middle: np.ndarray, right: np.ndarray) -> float:
    """Smallest factor >= 1 on the half widths (candidates,), logits, that nine of ten groups agree with."""
    for factor in WIDENING:
        ends = [1 / (1 + np.exp(-(middle + side * factor * half_width))) for side in (-1, 1)]
        low, high = np.minimum(ends[0], confidence), np.maximum(ends[1], confidence)
        if groups_covered(confidence, low, high, right) >= LEVEL:
            return float(factor)
    return float(WIDENING[-1])


def table_of(candidates: Candidates, confidence: np.ndarray, unfamiliar: np.ndarray) -> Table:
    """For decisions: cross-fitted confidences."""
    seconds = float(candidates.durations.sum())
    columns = (confidence, candidates.label, candidates.right, candidates.recording, unfamiliar)
    return Table(*columns, len(candidates.files), seconds, candidates.num_events)


# ---- borders and exits -----------------------------------------------------------------------------------------------


def fit_borders(candidates: Candidates, chosen: np.ndarray) -> dict[str, float]:
    """Interval of onsets and offsets, in units of `border_scale`, that holds 90 % of the errors of right candidates.

    Errors are counted inwards: a true onset after, or a true offset before the border that was found. Both borders
    share one distribution, which doubles the data. The 5 and 95 % quantiles are widened to the outer end of their own
    80 % bootstrap interval over recordings, because errors of one recording are alike.

    Args:
        candidates: of one setting.
        chosen: (candidates,) which count, right ones that would be reported.
    """
    errors, recording = [], []
    for index in np.flatnonzero(chosen):
        one, truth = candidates.evidence[index], candidates.truth[index]
        for name, sign in (("onset", 1), ("offset", -1)):
            scale = border_scale(getattr(one, f"{name}_spread"), getattr(one, f"{name}_rise"), BORDER_FLOOR_S)
            errors.append(sign * (getattr(truth, name) - getattr(one.box, name)) / scale)
            recording.append(candidates.recording[index])
    values, owner = np.array(errors), np.array(recording)
    groups = [values[owner == number] for number in np.unique(owner)]
    rng = np.random.default_rng(0)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    drawn = [
        np.quantile(np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]), tails)
        for _ in range(NUM_BOOTSTRAPS)
    ]
    outwards, inwards = (np.quantile(column, q) for column, q in zip(np.array(drawn).T, (0.1, 0.9), strict=True))
    return {"floor": BORDER_FLOOR_S, "outwards": round(float(outwards), 4), "inwards": round(float(inwards), 4)}


def fit_doubt_limits(doubts: np.ndarray, losses: np.ndarray, allowed_rise: float) -> list[float]:
    """Limits of all exits but the deepest, as loose as the allowed loss permits.

    Args:
        doubts: (exits - 1, windows) of held-out windows.
        losses: (exits, windows) mean cross-entropy of the frames of a window at every exit.
        allowed_rise: relative rise of the mean loss over that of the deepest exit.

    Returns:
        One limit per exit: the same quantile of every exit's doubts.
    """
    best = [0.0] * len(doubts)
    for quantile in np.linspace(0.02, 1.0, 50):
        limits = np.quantile(doubts, quantile, axis=1)
        stops = np.concatenate([doubts < limits[:, None], np.ones((1, doubts.shape[1]), bool)])
        spoke = stops.argmax(0)
        loss = losses[spoke, np.arange(losses.shape[1])].mean()
        if loss <= losses[-1].mean() * (1 + allowed_rise):
            best = [float(limit) for limit in limits]
    return best


__all__ = [
    "HierarchicalMap",
    "Outside",
    "cross_fit",
    "features_of",
    "fit_borders",
    "fit_doubt_limits",
    "fit_familiarity",
    "fit_map",
    "groups_covered",
    "set_limit",
    "table_of",
    "unfamiliarities",
    "widen_until_covered",
]
