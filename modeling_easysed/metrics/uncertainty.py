"""Whether uncertainty points at the errors, and how it splits into noise in the data and doubt of the model."""

from typing import Any, NamedTuple

import numpy as np

# uncertainties that agree to this many decimals are ties: the entropies of p and 1 - p differ in the last bit
TIE_DECIMALS = 12


class BernoulliUncertainty(NamedTuple):
    """Entropies in nats, each the shape of one pass.

    Attributes:
        total: entropy of the mean probability.
        expected: mean entropy of the passes, the part that more data would not remove (aleatoric).
        mutual_information: total - expected >= 0, the disagreement of the passes (epistemic).
    """

    total: np.ndarray
    expected: np.ndarray
    mutual_information: np.ndarray


def bernoulli_uncertainty(samples: Any) -> BernoulliUncertainty:
    """Split the uncertainty of independent classes over stochastic passes.

    Args:
        samples: (passes, ...) probabilities in [0, 1], for example (passes, batch, frames, classes).

    Raises:
        ValueError: if there is no pass, or a value is outside [0, 1].

    Source: Houlsby et al., Bayesian Active Learning for Classification, 2011 (BALD); Gal & Ghahramani, ICML 2016;
    Depeweg et al., ICML 2018. With h(p) = -p ln p - (1 - p) ln(1 - p) and 0 ln 0 = 0.
    """
    probability = np.asarray(samples, dtype=np.float64)
    if probability.ndim == 0 or probability.shape[0] == 0:
        raise ValueError(f"samples must be (passes, ...) with at least one pass, got {probability.shape}; stack passes")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("samples must be probabilities in [0, 1], got a value outside; apply the sigmoid first")
    total = _binary_entropy(probability.mean(axis=0))
    expected = _binary_entropy(probability).mean(axis=0)
    # equal passes can give -1e-17
    return BernoulliUncertainty(total, expected, np.maximum(total - expected, 0.0))


def _binary_entropy(probability: np.ndarray) -> np.ndarray:
    entropy = np.zeros_like(probability)
    for outcome in (probability, 1 - probability):
        entropy -= outcome * np.log(np.where(outcome > 0, outcome, 1.0))
    return entropy


def aurc(uncertainties: Any, errors: Any) -> float:
    """Area under the risk-coverage curve: the mean over k of the error rate among the k most certain decisions.

    Decisions of equal uncertainty have no order, so the value is the expectation over all orders of the ties
    (implementations that keep the order of the input give a value that depends on it).

    Args:
        uncertainties: any shape, finite; higher is less certain.
        errors: same shape, 1 where the decision is wrong, else 0.

    Returns:
        A value in [0, 1]; 0 without errors.

    Raises:
        ValueError: for shapes that differ or are empty, uncertainties that are not finite, or errors not 0 or 1.

    Source: Geifman & El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017; Geifman, Uziel &
    El-Yaniv, Bias-Reduced Uncertainty Estimation, ICLR 2019.
    """
    tie, error = _check_errors(uncertainties, errors)
    group_size = np.bincount(tie)
    group_errors = np.bincount(tie, weights=error)
    # every decision of a tie is expected to hold an equal share of its errors
    expected_errors = np.repeat(group_errors / group_size, group_size)
    return float(np.mean(np.cumsum(expected_errors) / np.arange(1, len(error) + 1)))


def error_detection_auroc(uncertainties: Any, errors: Any) -> float:
    """Probability that an error is more uncertain than a right decision; ties count one half.

    Args:
        uncertainties: any shape, finite; higher is less certain.
        errors: same shape, 1 where the decision is wrong, else 0.

    Returns:
        A value in [0, 1]; 0.5 for constant uncertainties; nan (write it as null in JSON) if no decision or every
        decision is wrong, where it is undefined.

    Raises:
        ValueError: for shapes that differ or are empty, uncertainties that are not finite, or errors not 0 or 1.

    Source: Hendrycks & Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples, ICLR 2017.
    """
    tie, error = _check_errors(uncertainties, errors)
    num_errors = error.sum()
    if num_errors in (0, len(error)):
        return float("nan")
    group_errors = np.bincount(tie, weights=error)
    group_right = np.bincount(tie) - group_errors
    right_below = np.cumsum(group_right) - group_right
    wins = (group_errors * (right_below + 0.5 * group_right)).sum()
    return float(wins / (num_errors * (len(error) - num_errors)))


def _check_errors(uncertainties: Any, errors: Any) -> tuple[np.ndarray, np.ndarray]:
    """(decisions,) rank of the tie of each decision, the most certain tie first, and its error as 0 or 1."""
    uncertainty = np.asarray(uncertainties, dtype=np.float64)
    error = np.asarray(errors, dtype=np.float64)
    if uncertainty.shape != error.shape or uncertainty.size == 0:
        raise ValueError(
            f"uncertainties and errors must have one non-empty shape, got {uncertainty.shape} and {error.shape}; "
            "give one 0/1 error per uncertainty"
        )
    if not np.isfinite(uncertainty).all():
        raise ValueError("uncertainties must be finite, got nan or infinity; remove those decisions")
    if not ((error == 0) | (error == 1)).all():
        raise ValueError("errors must be 0 or 1, got another value; compare decisions with labels first")
    _, tie = np.unique(np.round(uncertainty.ravel(), TIE_DECIMALS), return_inverse=True)
    return tie, error.ravel()
