"""Intervals against closed forms and hand-computed tails, sentences against words."""

import math

import numpy as np
import pytest
from rare_event_statistics import (
    FalseAlarms,
    Recall,
    clopper_pearson,
    learning_curve,
    poisson_upper,
)


def test_interval_of_all_and_of_none_has_a_closed_form():
    assert clopper_pearson(5, 5) == pytest.approx((0.05 ** (1 / 5), 1.0))
    assert clopper_pearson(0, 20) == pytest.approx((0.0, 1 - 0.05 ** (1 / 20)))


def test_interval_of_nine_of_ten():
    """At the lower end 9 or 10 of 10 come with probability 0.05, at the upper end at most 9 do."""
    low, high = clopper_pearson(9, 10)
    assert 10 * low**9 * (1 - low) + low**10 == pytest.approx(0.05, abs=1e-9)
    assert 1 - high**10 == pytest.approx(0.05, abs=1e-9)
    assert (round(low, 2), round(high, 2)) == (0.61, 0.99)


def test_interval_mirrors():
    low, high = clopper_pearson(3, 17)
    assert clopper_pearson(14, 17) == pytest.approx((1 - high, 1 - low))


def test_interval_between_whole_numbers_is_interpolated():
    lower, upper = clopper_pearson(8, 10), clopper_pearson(9, 10)
    assert clopper_pearson(8.5, 10) == pytest.approx([(a + b) / 2 for a, b in zip(lower, upper, strict=True)])


@pytest.mark.parametrize("found, total", [(3, 2), (-1, 2), (0, 0)])
def test_interval_of_impossible_counts(found, total):
    with pytest.raises(ValueError, match="found must be between 0 and total >= 1"):
        clopper_pearson(found, total)


def test_poisson_bound():
    assert poisson_upper(0) == pytest.approx(math.log(10))
    bound = poisson_upper(2)
    assert math.exp(-bound) * (1 + bound + bound**2 / 2) == pytest.approx(0.1, abs=1e-9)
    with pytest.raises(ValueError, match="count must be 0 or more, got -1"):
        poisson_upper(-1)


def test_recall_in_words():
    assert Recall(9, 10, 10).sentence() == "9 of 10 found: recall 0.90, 90 % interval 0.61 to 0.99"


def test_mixtures_of_a_recording_are_one_trial():
    """54 of 60 mixtures of ten recordings are as sure as 9 of 10 recordings, not as 54 of 60."""
    assert Recall(54, 60, 10).interval == pytest.approx(clopper_pearson(9, 10))
    assert Recall(54, 60, 10).sentence() == (
        "54 of 60 (mixtures of 10 recordings) found: recall 0.90, 90 % interval 0.61 to 0.99"
    )


def test_false_alarms_in_words():
    assert FalseAlarms(0, 0.5).sentence() == "0 in 0.5 h: at most 4.6 per hour"
    assert FalseAlarms(6, 2.0).sentence() == "6 in 2 h: 3 per hour, at most 5.3 per hour"


# ---- would more recordings help? -------------------------------------------------------------------------------------


def curve_of(*rows):
    """Rows of recall by recording at 2, 4 and 8 recordings."""
    return learning_curve([2, 4, 8], np.array(rows, dtype=float), seed=0)


def test_slope_by_hand():
    """Every recording gains 0.1 per doubling."""
    curve = curve_of([0.3] * 6, [0.4] * 6, [0.5] * 6)
    assert (curve.per_doubling, curve.low, curve.high) == pytest.approx((0.1, 0.1, 0.1))
    assert curve.sizes == [2, 4, 8] and curve.recall == pytest.approx([0.3, 0.4, 0.5])


def test_the_interval_resamples_recordings():
    curve = curve_of([0, 0, 0, 0], [0.5, 0.25, 0, 0], [1, 0.5, 0, 0])
    assert curve.per_doubling == pytest.approx(0.1875)
    assert 0 <= curve.low < curve.per_doubling < curve.high <= 0.5


@pytest.mark.parametrize(
    "rows, words",
    [
        ([[0.3] * 6, [0.4] * 6, [0.5] * 6], "More recordings would help: a doubling changed the recall by +10 points"),
        ([[0.5] * 6, [0.51] * 6, [0.5] * 6], "More recordings like these would hardly help"),
        ([[0, 1, 0, 1], [1, 0, 0, 1], [1, 0, 1, 0.4]], "cannot be told from 8: a doubling changed"),
        ([[0.8] * 4, [0.9] * 4, [0.97] * 4], "would hardly show in these tests: with 8 the recall is 0.97"),
        ([[0.0] * 4, [0.0] * 4, [0.01] * 4], "cannot be told from 8: so far next to nothing is found, recall 0.01"),
    ],
)
def test_one_sentence_answers(rows, words):
    assert words in curve_of(*rows).sentence()


def test_a_curve_needs_two_sizes():
    with pytest.raises(ValueError, match="needs two sizes or more"):
        learning_curve([4], np.ones((1, 3)), seed=0)
