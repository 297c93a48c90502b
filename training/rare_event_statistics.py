"""How sure a few recordings make us: exact intervals of a recall and of a rate, and what more recordings would bring.

Every sentence carries its interval: 9 of 10 is not 90 %."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEVEL = 0.9  # of all intervals and bounds
NUM_BOOTSTRAPS = 1000
WORTHWHILE = 0.05  # recall that a doubling must add to be worth the work of recording
BARELY = 0.05  # recall below which the curve has not begun
SATURATED = 0.95  # recall from which more recordings have nothing left to show


def clopper_pearson(found: float, total: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of the probability behind `found` of `total`.

    Between whole numbers the bounds are interpolated: 4.5 of 5 recordings were found where one is found in half of its
    mixtures, and five recordings are no more than five, however often each is mixed.

    Args:
        found: 0 .. total.
        total: independent trials, at least 1.
        level: in (0, 1), shared evenly between both sides.

    Source: Clopper & Pearson 1934, Biometrika 26.

    Raises:
        ValueError: for a count outside its range.
    """
    if total < 1 or not 0 <= found <= total:
        raise ValueError(f"found must be between 0 and total >= 1, got {found} of {total}")
    below, above = math.floor(found), math.ceil(found)
    (low, high), (next_low, next_high) = (_whole_interval(count, total, (1 - level) / 2) for count in (below, above))
    share = found - below
    return low + share * (next_low - low), high + share * (next_high - high)


def _whole_interval(found: int, total: int, tail: float) -> tuple[float, float]:
    # P(X >= found) grows with p and is `tail` at the lower end; P(X <= found) falls and is `tail` at the upper end
    low = 0.0 if found == 0 else _root(lambda p: 1 - _binomial_cdf(found - 1, total, p) - tail, 1.0)
    high = 1.0 if found == total else _root(lambda p: tail - _binomial_cdf(found, total, p), 1.0)
    return low, high


def _binomial_cdf(most: int, total: int, probability: float) -> float:
    terms = (math.comb(total, k) * probability**k * (1 - probability) ** (total - k) for k in range(most + 1))
    return math.fsum(terms)


def poisson_upper(count: int, level: float = LEVEL) -> float:
    """Exact upper bound of the mean behind a count: 2.303 for none. Source: Garwood 1936, Biometrika 28.

    Raises:
        ValueError: for a negative count.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}")

    def excess(mean: float) -> float:
        logs = (n * math.log(mean) - mean - math.lgamma(n + 1) for n in range(count + 1))
        return 1 - level - math.fsum(math.exp(value) for value in logs)

    return _root(excess, 10.0 + 2.0 * count + 5.0 * math.sqrt(count))


def _root(rising: Callable[[float], float], largest: float) -> float:
    """Where a rising function of a number between 0 and `largest` crosses 0, by bisection."""
    low, high = 0.0, largest
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Recall:
    """Found of total trials, which come from so many independent recordings."""

    found: int
    total: int
    recordings: int

    @property
    def value(self) -> float:
        return self.found / self.total

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson(self.value * self.recordings, self.recordings)

    def sentence(self) -> str:
        """E.g. "9 of 10 found: recall 0.90, 90 % interval 0.61 to 0.99"."""
        low, high = self.interval
        what = f"{self.found} of {self.total}"
        if self.total != self.recordings:
            what += f" (mixtures of {self.recordings} recordings)"
        return f"{what} found: recall {self.value:.2f}, 90 % interval {low:.2f} to {high:.2f}"


@dataclass(frozen=True)
class FalseAlarms:
    """False alarms in so many hours."""

    count: int
    hours: float

    @property
    def per_hour(self) -> float:
        return self.count / self.hours

    @property
    def upper(self) -> float:
        """So many per hour at most, with 90 % confidence."""
        return poisson_upper(self.count) / self.hours

    def sentence(self) -> str:
        """E.g. "0 in 0.5 h: at most 4.6 per hour"."""
        rate = "" if self.count == 0 else f"{self.per_hour:.2g} per hour, "
        return f"{self.count} in {self.hours:.2g} h: {rate}at most {self.upper:.2g} per hour"


@dataclass(frozen=True)
class LearningCurve:
    """Recall of held-out recordings against how many recordings were learned from.

    Attributes:
        sizes: recordings learned from, increasing.
        recall: mean over held-out recordings at each size.
        per_doubling: recall gained when the number doubles, with its 90 % interval over recordings.
    """

    sizes: list[int]
    recall: list[float]
    per_doubling: float
    low: float
    high: float

    def sentence(self) -> str:
        """Would more recordings help?"""
        now, last = self.recall[-1], self.sizes[-1]
        change = f"a doubling changed the recall by {100 * self.per_doubling:+.0f} points so far"
        interval = f"90 % interval {100 * self.low:+.0f} to {100 * self.high:+.0f}"
        if now >= SATURATED:
            return (
                f"More recordings would hardly show in these tests: with {last} the recall is {now:.2f}; harder tests "
                "(farther away, louder surroundings) would tell more."
            )
        if now < BARELY:
            return (
                f"Whether more recordings would help cannot be told from {last}: so far next to nothing is found, "
                f"recall {now:.2f}."
            )
        if self.low > 0:
            return f"More recordings would help: {change} ({interval})."
        if self.high < WORTHWHILE:
            return f"More recordings like these would hardly help: {change} ({interval})."
        return f"Whether more recordings would help cannot be told from {last}: {change} ({interval})."


def learning_curve(sizes: list[int], recall: np.ndarray, seed: int) -> LearningCurve:
    """The curve and its slope over the logarithm of the size, least squares; the interval resamples recordings.

    Args:
        sizes: at least two, increasing.
        recall: (sizes, recordings), share of each held-out recording's mixtures that was found.
        seed: of the bootstrap.

    Raises:
        ValueError: for fewer than two sizes, or a table of another shape.
    """
    if len(sizes) < 2 or recall.shape[0] != len(sizes):
        raise ValueError(f"a learning curve needs two sizes or more and a row for each, got {sizes}, {recall.shape}")
    doublings = np.log2(sizes) - np.log2(sizes).mean()
    slopes = doublings @ recall / np.square(doublings).sum()
    # (recordings,)
    rng = np.random.default_rng([seed, 9])
    drawn = slopes[rng.integers(len(slopes), size=(NUM_BOOTSTRAPS, len(slopes)))].mean(1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return LearningCurve(list(sizes), recall.mean(1).tolist(), float(slopes.mean()), float(low), float(high))


__all__ = ["FalseAlarms", "LearningCurve", "Recall", "clopper_pearson", "learning_curve", "poisson_upper"]
