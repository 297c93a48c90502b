"""Error detection and the split of uncertainty: stored vectors, hand-computed cases, refused input."""

import numpy as np
import pytest
from metric_vectors import close, load_vectors

from modeling_easysed.metrics import aurc, bernoulli_uncertainty, error_detection_auroc


def uncertainties_of(probability):
    entropy = bernoulli_uncertainty(probability[None]).total
    return {"uncertainty=entropy": entropy, "uncertainty=1-max(p,1-p)": 1 - np.maximum(probability, 1 - probability)}


def test_error_detection_equals_vectors(data_dir):
    for case in load_vectors(data_dir, "calibration")["cases"]:
        probability, label = np.array(case["probabilities"]), np.array(case["labels"])
        error = (probability >= 0.5) != (label == 1)
        for name, uncertainty in uncertainties_of(probability).items():
            expected = case["expected"]["error_detection"][name]
            assert aurc(uncertainty, error) == close(expected["aurc_tie_averaged"]), case["name"]
            assert aurc(error, error) == close(expected["optimal_aurc"]), case["name"]
            assert error_detection_auroc(uncertainty, error) == close(expected["auroc"]), case["name"]


def test_error_detection_by_hand():
    uncertainty, error = [0.2, 0.1, 0.4, 0.2], [1, 0, 1, 0]
    # most certain first: right, then one error in a tie of two, then an error: (0 + .5/2 + 1/3 + 2/4) / 4
    assert aurc(uncertainty, error) == pytest.approx((0 + 1 / 4 + 1 / 3 + 1 / 2) / 4)
    # 4 pairs of an error and a right decision: 0.2 beats 0.1 and ties 0.2, 0.4 beats both
    assert error_detection_auroc(uncertainty, error) == pytest.approx(3.5 / 4)


def test_order_of_the_input_does_not_matter():
    uncertainty, error = np.zeros(6), np.array([1, 0, 0, 1, 0, 0])
    # one big tie: the error rate at every coverage
    assert aurc(uncertainty, error) == aurc(uncertainty, error[::-1]) == pytest.approx(1 / 3)
    assert error_detection_auroc(uncertainty, error) == 0.5


def test_uncertainties_that_differ_in_the_last_bit_are_ties():
    uncertainty = [0.3, 0.1 + 0.2]
    assert uncertainty[0] < uncertainty[1]
    assert error_detection_auroc(uncertainty, [0, 1]) == error_detection_auroc(uncertainty, [1, 0]) == 0.5
    assert aurc(uncertainty, [0, 1]) == aurc(uncertainty, [1, 0]) == 0.5


@pytest.mark.parametrize("error", [[0, 0], [1, 1]])
def test_auroc_without_errors_or_without_right_decisions_is_nan(error):
    assert np.isnan(error_detection_auroc([0.1, 0.2], error))


@pytest.mark.parametrize("metric", [aurc, error_detection_auroc])
@pytest.mark.parametrize(
    ("uncertainty", "error", "message"),
    [
        ([0.1], [0, 1], r"must have one non-empty shape, got \(1,\) and \(2,\)"),
        ([], [], "must have one non-empty shape"),
        ([float("nan")], [1], "uncertainties must be finite"),
        ([0.1], [0.5], "errors must be 0 or 1"),
    ],
)
def test_error_detection_input_is_refused(metric, uncertainty, error, message):
    with pytest.raises(ValueError, match=message):
        metric(uncertainty, error)


NAMES = {"total": "predictive_entropy", "expected": "expected_entropy", "mutual_information": "mutual_information"}


def test_uncertainty_equals_vectors(data_dir):
    for case in load_vectors(data_dir, "mc_uncertainty")["cases"]:
        result = bernoulli_uncertainty(case["samples_T_N_C"])._asdict()
        for ours, theirs in NAMES.items():
            np.testing.assert_allclose(result[ours], case["expected"][theirs], rtol=0, atol=1e-9)
            per_item = case["expected"]["per_item_sum_over_classes"][theirs]
            np.testing.assert_allclose(result[ours].sum(axis=-1), per_item, rtol=0, atol=1e-9)
            assert result[ours].mean() == close(case["expected"]["mean"][theirs])


def test_uncertainty_by_hand():
    # two sure passes that disagree: all doubt is the model's; two that agree on 1/2: all noise
    total, expected, mutual_information = bernoulli_uncertainty([[0.0, 0.5], [1.0, 0.5]])
    np.testing.assert_allclose(total, [np.log(2), np.log(2)])
    np.testing.assert_allclose(expected, [0.0, np.log(2)], atol=1e-15)
    np.testing.assert_allclose(mutual_information, [np.log(2), 0.0], atol=1e-15)


def test_mutual_information_is_never_negative():
    passes = np.repeat(np.random.default_rng(0).random((1, 1000)), 7, axis=0)
    assert (bernoulli_uncertainty(passes).mutual_information >= 0).all()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((0, 3)), r"samples must be \(passes, ...\) with at least one pass, got \(0, 3\)"),
        (0.5, "with at least one pass"),
        ([[1.2]], r"samples must be probabilities in \[0, 1\]"),
        ([[float("nan")]], r"samples must be probabilities in \[0, 1\]"),
    ],
)
def test_samples_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        bernoulli_uncertainty(samples)
