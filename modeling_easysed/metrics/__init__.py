"""Metrics of sound event detection and of calibrated confidence, in numpy alone.

Definitions follow the papers named in each docstring. Where the field's packages disagree, the docstring says which
convention holds here. Times are in seconds, rates per hour, entropies in nats.
"""

from .calibration import (
    ReliabilityBins,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
)
from .event_based import event_based_metrics
from .intersection import intersection_f1
from .psds import psds, psds_from_boxes
from .segment_based import segment_based_metrics
from .uncertainty import BernoulliUncertainty, aurc, bernoulli_uncertainty, error_detection_auroc

__all__ = [
    "BernoulliUncertainty",
    "ReliabilityBins",
    "aurc",
    "bernoulli_uncertainty",
    "brier_score",
    "error_detection_auroc",
    "event_based_metrics",
    "expected_calibration_error",
    "fit_temperature",
    "intersection_f1",
    "negative_log_likelihood",
    "psds",
    "psds_from_boxes",
    "reliability_bins",
    "segment_based_metrics",
]
