"""Calibration error, proper scores and temperature: stored vectors, hand-computed cases, refused input."""

import math

import numpy as np
import pytest
from metric_vectors import close, load_vectors

from modeling_easysed.metrics import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
)

CASES = [
    "calibrated",
    "over_confident",
    "under_confident_biased",
    "bin_borders",
    "ties",
    "perfect_hard",
    "all_wrong_hard",
    "all_half",
    "single_item",
    "all_negative_labels",
]
CLOSED = {"right": "right_closed_guo", "left": "left_closed"}


@pytest.fixture
def case(request, data_dir):
    cases = {case["name"]: case for case in load_vectors(data_dir, "calibration")["cases"]}
    assert sorted(cases) == sorted(CASES)
    return cases[request.param]


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("variant", ["confidence", "positive_class"])
@pytest.mark.parametrize("closed", CLOSED)
def test_calibration_error_equals_vectors(case, variant, closed):
    expected = case["expected"][f"ece_{variant}_flattened"][CLOSED[closed]]
    arguments = (case["probabilities"], case["labels"], 15, variant, closed)
    assert expected_calibration_error(*arguments) == close(expected["ece"])
    bins = reliability_bins(*arguments)
    assert bins.count.tolist() == expected["count"]
    for ours, theirs in ((bins.confidence, "mean_confidence"), (bins.accuracy, "mean_accuracy")):
        np.testing.assert_allclose(ours, np.array(expected[theirs], dtype=float), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_scores_equal_vectors(case):
    expected = case["expected"]
    assert brier_score(case["probabilities"], case["labels"]) == close(expected["brier"])
    assert negative_log_likelihood(case["probabilities"], case["labels"]) == close(expected["nll"])
    columns = zip(np.transpose(case["probabilities"]), np.transpose(case["labels"]), strict=True)
    for index, (probability, label) in enumerate(columns):
        ece = expected_calibration_error(probability, label, variant="positive_class")
        assert ece == close(expected["ece_positive_class_per_class_right_closed"][index])
        assert brier_score(probability, label) == close(expected["brier_per_class"][index])
        assert negative_log_likelihood(probability, label) == close(expected["nll_per_class"][index])


def test_the_two_variants_by_hand():
    probabilities, labels = [0.9, 0.7, 0.3], [1, 0, 0]
    # confidence 0.9 0.7 0.7, all in (0.5, 1], right 1 0 1: |2/3 - 2.3/3|
    assert expected_calibration_error(probabilities, labels, 2) == pytest.approx(0.1)
    # (0.5, 1] holds 0.9 and 0.7, half of them positive: 2/3 * 0.3; [0, 0.5] holds 0.3 and no positive: 1/3 * 0.3
    assert expected_calibration_error(probabilities, labels, 2, "positive_class") == pytest.approx(0.3)
    # Brier (0.01 + 0.49 + 0.09) / 3; NLL -(ln 0.9 + ln 0.3 + ln 0.7) / 3
    assert brier_score(probabilities, labels) == pytest.approx(0.59 / 3)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(-math.log(0.9 * 0.3 * 0.7) / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bins": 0}, "num_bins must be a whole number >= 1, got 0"),
        ({"num_bins": 2.5}, "num_bins must be a whole number >= 1, got 2.5"),
        ({"variant": "top"}, "variant must be 'confidence' or 'positive_class', got 'top'"),
        ({"closed": "both"}, "closed must be 'right' or 'left', got 'both'"),
    ],
)
def test_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error([0.5], [1], **options)


@pytest.mark.parametrize("metric", [expected_calibration_error, brier_score, negative_log_likelihood])
@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([0.5], [1, 0], r"must have one non-empty shape, got \(1,\) and \(2,\)"),
        ([], [], "must have one non-empty shape"),
        ([1.5], [1], r"probabilities must be in \[0, 1\], got values from 1.5"),
        ([float("nan")], [1], r"probabilities must be in \[0, 1\]"),
        ([0.5], [0.3], "labels must be 0 or 1, got 0.3"),
    ],
)
def test_decisions_are_refused(metric, probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        metric(probabilities, labels)


def test_eps_is_refused():
    with pytest.raises(ValueError, match=r"eps must be in \(0, 0.5\), got 0.0"):
        negative_log_likelihood([0.5], [1], eps=0.0)


def nll_at(temperature, logits, labels):
    """Independent of the probabilities' clipping: log-sum-exp of the logits."""
    scaled = np.asarray(logits) / temperature
    if np.ndim(labels) < scaled.ndim:
        return np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(scaled)), labels])
    return np.mean(np.logaddexp(0, scaled) - np.asarray(labels) * scaled)


@pytest.mark.parametrize("name", ["sigmoid_over_confident", "sigmoid_under_confident", "softmax"])
def test_temperature_equals_vectors(data_dir, name):
    cases = {case["name"]: case for case in load_vectors(data_dir, "temperature_scaling")["cases"]}
    case, expected = cases[name], cases[name]["expected"]
    fits = [(np.array(case["logits"]), np.array(case["labels"]), expected)]
    for index, column in enumerate(expected.get("per_class", [])):
        fits.append((fits[0][0][:, index], fits[0][1][:, index], column))
    for logits, labels, stored in fits:
        temperature = fit_temperature(logits, labels)
        assert temperature == pytest.approx(stored["T"], rel=1e-4)
        assert nll_at(1.0, logits, labels) == close(stored["nll_before"])
        assert nll_at(temperature, logits, labels) == close(stored["nll_after"])


@pytest.mark.parametrize(
    ("name", "temperature", "message"),
    [
        ("separable", 0.01, "clamped to 0.01.*separate the labels without error"),
        ("anti_correlated", 100.0, "clamped to 100.*carry no information on the labels or contradict them"),
    ],
)
def test_temperature_without_optimum_is_clamped(data_dir, name, temperature, message):
    cases = {case["name"]: case for case in load_vectors(data_dir, "temperature_scaling")["cases"]}
    with pytest.warns(UserWarning, match=message):
        assert fit_temperature(cases[name]["logits"], cases[name]["labels"]) == temperature


def test_temperature_by_hand():
    # 3 of 4 decisions with a logit of 2 are positive: sigmoid(2 / T) = 3/4, so T = 2 / ln 3
    assert fit_temperature([2.0] * 4, [1, 1, 1, 0]) == pytest.approx(2 / math.log(3), rel=1e-9)
    assert fit_temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1]) == pytest.approx(2 / math.log(3), rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[1.0, 2.0]], [[1, 0], [0, 1]], r"must have the shape of logits .* got \(2, 2\) for logits \(1, 2\)"),
        ([], [], "must have the shape of logits"),
        ([float("inf")], [1], "logits must be finite"),
        ([1.0], [2], "labels must be 0 or 1, got 2"),
        ([[1.0, 2.0]], [2], "labels must be class indices 0..1, got 2"),
    ],
)
def test_temperature_input_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)
