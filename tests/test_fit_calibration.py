"""What calibration fits, on simulated candidates whose truth is known and on cases small enough to check by hand."""

import numpy as np
import pytest
from candidates import Candidates
from event_truth import Truth
from fit_calibration import (
    BORDER_FLOOR_S,
    GROUP_SIZE,
    HierarchicalMap,
    Outside,
    cross_fit,
    features_of,
    fit_borders,
    fit_doubt_limits,
    fit_familiarity,
    fit_map,
    groups_covered,
    set_limit,
    table_of,
    unfamiliarities,
    widen_until_covered,
)
from test_evidence import make_evidence

from modeling_easysed.calibration_easysed import FEATURES, Familiarity, border_scale
from modeling_easysed.decoding_easysed import Box

TRUE = np.array([-0.5, 1.2, 0.4, -0.3, 0.2])  # coefficients of all classes together


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def make_candidates(evidence: list, right, recording=None, num_files: int | None = None, truth=None) -> Candidates:
    """One candidate per entry; each in a recording of its own unless told."""
    recording = np.arange(len(evidence)) if recording is None else np.asarray(recording)
    num_files = len(evidence) if num_files is None else num_files
    truth = [Truth(bool(one), np.nan, np.nan) for one in right] if truth is None else truth
    files = [f"{number}.wav" for number in range(num_files)]
    num_events = np.bincount(recording, right, minlength=num_files).astype(int)
    return Candidates(evidence, truth, recording, files, np.full(num_files, 10.0), num_events, [])


def simulate(counts: list[int], seed: int, intercepts=None, num_recordings: int = 300):
    """Features, labels, truth and recordings of so many candidates per class; intercepts are added to TRUE's."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = np.column_stack([np.ones(len(labels)), rng.normal(size=(len(labels), 4)) * [1.5, 1.0, 1.0, 1.0]])
    extra = np.zeros(len(counts)) if intercepts is None else np.asarray(intercepts)
    right = rng.random(len(labels)) < sigmoid(features @ TRUE + extra[labels])
    return features, labels, right.astype(float), rng.integers(0, num_recordings, size=len(labels))


# ---- the map to confidence -------------------------------------------------------------------------------------------


def test_the_map_finds_the_coefficients_of_simulated_data():
    fitted = HierarchicalMap(*simulate([4000] * 4, seed=0), num_classes=4)
    for label in (None, 0, 3):
        coefficients, covariance = fitted.of_class(label)
        assert coefficients == pytest.approx(TRUE, abs=0.12)
        assert np.sqrt(np.diag(covariance))[2:].max() < 0.05 and np.linalg.eigvalsh(covariance).min() > 0


def test_the_covariance_is_that_of_repeated_data():
    fits = [HierarchicalMap(*simulate([800], seed), num_classes=1).of_class(0) for seed in range(60)]
    observed = np.std([coefficients for coefficients, _ in fits], axis=0)
    claimed = np.sqrt(np.mean([np.diag(covariance) for _, covariance in fits], axis=0))
    assert claimed == pytest.approx(observed, rel=0.35)


def test_candidates_of_a_recording_are_not_independent():
    features, labels, right, _ = simulate([1000], seed=1)
    once = HierarchicalMap(features, labels, right, np.arange(1000), 1).of_class(0)
    thrice = [np.concatenate([values] * 3) for values in (features, labels, right, np.arange(1000))]
    coefficients, covariance = HierarchicalMap(*thrice, 1).of_class(0)
    assert coefficients == pytest.approx(once[0], abs=0.02)
    assert np.diag(covariance) == pytest.approx(np.diag(once[1]), rel=0.1)  # not a third of it


def test_a_rare_class_is_judged_like_all_and_a_frequent_one_by_itself():
    counts, intercepts = [6000, 6000, 6000, 3], [1.5, -1.5, 0.0, 0.0]
    fitted = HierarchicalMap(*simulate(counts, seed=2, intercepts=intercepts), num_classes=4)
    pooled, _ = fitted.of_class(None)
    for label in (0, 1):
        own, _ = fitted.of_class(label)
        assert own[0] == pytest.approx(TRUE[0] + intercepts[label], abs=0.2)
        assert own[2:] == pytest.approx(pooled[2:])  # classes share these
    rare, covariance = fitted.of_class(3)
    assert rare == pytest.approx(pooled, abs=0.4)
    assert covariance[0, 0] > 10 * fitted.of_class(0)[1][0, 0]  # and it is known less well


def test_three_wrong_events_do_not_condemn_a_class():
    features, labels, right, recording = simulate([2000, 3], seed=3)
    right[-3:], features[-3:, 1:] = 0.0, 0.0  # a maximum likelihood fit would never believe this class again
    fitted = HierarchicalMap(features, labels, right, recording, num_classes=2)
    pooled, rare = fitted.of_class(None)[0], fitted.of_class(1)[0]
    assert -0.6 < rare[0] - pooled[0] < 0.0


def test_confidences_are_those_of_each_candidates_class():
    features, labels, right, recording = simulate([4500, 4500], seed=4, intercepts=[1.0, -1.0])
    fitted = HierarchicalMap(features, labels, right, recording, num_classes=2)
    confidence, middle, variance = fitted.confidence(features, labels)
    for row in (0, -1):
        coefficients, covariance = fitted.of_class(int(labels[row]))
        assert middle[row] == pytest.approx(features[row] @ coefficients)
        assert variance[row] == pytest.approx(features[row] @ covariance @ features[row])
    assert confidence == pytest.approx(sigmoid(middle / np.sqrt(1 + np.pi * variance / 8)))
    for label in (0, 1):  # calibrated: as often right as it says
        assert confidence[labels == label].mean() == pytest.approx(right[labels == label].mean(), abs=0.01)


# ---- sounds of no target class in the map ----------------------------------------------------------------------------


def make_outside(row, count: int, weight: float, label: int = 0) -> Outside:
    """`count` equal candidates, one in every recording."""
    features = np.tile(np.array(row, float), (count, 1))
    return Outside(features, np.full(count, label), np.arange(count), np.full(count, weight))


def assert_same_maps(first: HierarchicalMap, second: HierarchicalMap, **tolerance):
    assert first.coefficients == pytest.approx(second.coefficients, **tolerance)
    assert first.covariance == pytest.approx(second.covariance, **tolerance)


def test_without_outside_sounds_the_map_is_that_of_the_recordings():
    features, labels, right, recording = simulate([300, 300], seed=6)
    alone = HierarchicalMap(features, labels, right, recording, 2)
    assert_same_maps(fit_map(features, labels, right > 0, recording, 2, None), alone)


def test_outside_candidates_are_wrong_ones_of_their_weight_by_hand():
    # nothing but an intercept: 300 right, 50 wrong and 100 outside of weight one half are right in 300 of 400 cases
    features = np.tile([1.0, 0.0, 0.0, 0.0, 0.0], (350, 1))
    labels, right = np.zeros(350, int), np.arange(350) < 300
    fitted = fit_map(features, labels, right, np.arange(350), 1, make_outside(features[0], 100, 0.5))
    assert fitted.of_class(0)[0] == pytest.approx([np.log(3), 0, 0, 0, 0], abs=1e-4)
    # sandwich: information 400 x 3/4 x 1/4 = 75; squared scores 300 / 16 + 50 x 9 / 16 + 100 x 9 / 64 = 60.9375
    assert fitted.of_class(0)[1][0, 0] == pytest.approx(60.9375 / 75**2, rel=1e-3)


def test_a_weight_of_two_is_the_same_candidate_twice():
    features, labels, right, recording = simulate([300, 300], seed=7)
    few = simulate([40, 40], seed=8, num_recordings=9)
    once = Outside(few[0], few[1], few[3], np.full(80, 2.0))
    twice = Outside(*(np.concatenate([one, one]) for one in (few[0], few[1], few[3])), np.ones(160))
    first, second = (fit_map(features, labels, right, recording, 2, one) for one in (once, twice))
    assert_same_maps(first, second, rel=1e-6, abs=1e-9)


def test_outside_recordings_are_no_target_recordings():
    """Their errors are independent of those of the target recording of the same number."""
    features, labels, right, recording = simulate([300, 300], seed=9, num_recordings=20)
    few = simulate([40, 40], seed=10, num_recordings=20)
    found = fit_map(features, labels, right, recording, 2, Outside(few[0], few[1], few[3], np.ones(80)))
    joined = [np.concatenate(pair) for pair in zip((features, labels, right), (*few[:2], np.zeros(80)), strict=True)]
    assert_same_maps(found, HierarchicalMap(*joined, np.concatenate([recording, few[3] + 20]), 2))
    mixed = HierarchicalMap(*joined, np.concatenate([recording, few[3]]), 2)
    assert found.coefficients == pytest.approx(mixed.coefficients)
    assert not np.allclose(found.covariance, mixed.covariance, rtol=0.01)


def test_outside_sounds_lower_what_looks_like_them_and_raise_no_class():
    features, labels, right, recording = simulate([2000, 2000], seed=11)
    look = np.array([1.0, 3.0, 1.0, 5.0, 1.0])  # taken for class 0: a high score, but far from what is known
    outside = make_outside(look, 300, 0.4)
    alone = fit_map(features, labels, right, recording, 2, None)
    heard = fit_map(features, labels, right, recording, 2, outside)
    before, after = (one.confidence(outside.features, outside.labels)[0].mean() for one in (alone, heard))
    assert before > 0.75 and after < before - 0.3
    own, other = labels == 0, labels == 1
    gain = heard.confidence(features, labels)[0] - alone.confidence(features, labels)[0]
    near = own & (np.abs(features[:, 1:] - look[1:]) < 3).all(1)
    assert near.sum() > 20 and gain[near].mean() < -0.1
    # single candidates may rise, as those that are most familiar do, but not on average: the sum of the residuals is 0,
    # so that the recordings lose together what the outside candidates are still believed, 120 x after
    assert gain.sum() == pytest.approx(-120 * after, rel=0.02)
    assert gain[own].mean() < -0.01 and abs(gain[other].mean()) < 1e-3


def test_outside_sounds_that_the_map_doubts_anyway_change_nothing_elsewhere():
    features, labels, right, recording = simulate([2000, 2000], seed=11)
    outside = make_outside([1.0, 0.0, 0.0, 5.0, 0.0], 50, 0.4)
    alone = fit_map(features, labels, right, recording, 2, None)
    heard = fit_map(features, labels, right, recording, 2, outside)
    before, after = (one.confidence(outside.features, outside.labels)[0].mean() for one in (alone, heard))
    assert after < before < 0.12
    gain = heard.confidence(features, labels)[0] - alone.confidence(features, labels)[0]
    assert np.abs(gain).max() < 0.02 and gain.mean() < 0.0


def test_a_weight_of_nothing_changes_nothing():
    features, labels, right, recording = simulate([300, 300], seed=12)
    ignored = make_outside([1.0, 3.0, 1.0, 5.0, 1.0], 50, 0.0)
    alone, found = (fit_map(features, labels, right, recording, 2, one) for one in (None, ignored))
    assert_same_maps(found, alone, rel=1e-6, abs=1e-9)


def test_cross_fitted_maps_hear_the_outside_sounds_in_every_fold():
    # an intercept alone, half of 400 candidates right: about 180 of 360 in every map, and 180 of 540 with 90 outside
    # ones of weight 2
    features = np.tile([1.0, 0.0, 0.0, 0.0, 0.0], (400, 1))
    candidates = make_candidates([make_evidence()] * 400, np.arange(400) % 2 > 0)
    alone = cross_fit(features, candidates, 1)[0]
    confidence, middle, _ = cross_fit(features, candidates, 1, make_outside(features[0], 90, 2.0))
    assert confidence.shape == middle.shape == (400,)
    assert alone.mean() == pytest.approx(1 / 2, abs=0.01)
    assert (sigmoid(middle).mean(), confidence.mean()) == pytest.approx((1 / 3, 1 / 3), abs=0.01)
    assert np.abs(confidence - 1 / 3).max() < 0.05


@pytest.mark.parametrize("outside", [None, make_outside([1.0, 1.0, 0.0, 1.0, 1.0], 45, 0.4)])
def test_cross_fitting_never_uses_the_candidates_own_recording(outside):
    features, labels, right, recording = simulate([300, 300], seed=5, num_recordings=40)
    evidence = [make_evidence(box=Box(1.0, 2.0, int(label), 0.5)) for label in labels]
    before = cross_fit(features, make_candidates(evidence, right, recording, 40), 2, outside)
    own = recording == 7
    changed = np.where(own, 1 - right, right)
    after = cross_fit(features, make_candidates(evidence, changed, recording, 40), 2, outside)
    for first, second in zip(before, after, strict=True):
        assert np.array_equal(first[own], second[own])
        assert not np.allclose(first[~own], second[~own])


# ---- familiarity -----------------------------------------------------------------------------------------------------


def test_familiarity_is_a_mahalanobis_distance_of_the_training_events():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, size=600)
    embeddings = rng.normal(size=(3, 6))[labels] * 4 + rng.normal(size=(600, 6)) * [1, 2, 3, 1, 1, 0.5]
    found = fit_familiarity(embeddings, labels, 3).measure(embeddings, labels)

    def distances(residuals):
        covariance = np.cov(residuals.T, bias=True)
        covariance += 1e-3 * np.trace(covariance) / 6 * np.eye(6)
        return (residuals * np.linalg.solve(covariance, residuals.T).T).sum(1)

    means = np.stack([embeddings[labels == label].mean(0) for label in range(3)])
    expected = distances(embeddings - means[labels]) - distances(embeddings - embeddings.mean(0))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_familiarity_survives_a_class_without_training_events():
    rng = np.random.default_rng(1)
    embeddings, labels = rng.normal(size=(50, 4)), rng.integers(0, 2, size=50)
    familiarity = fit_familiarity(embeddings, labels, 3)
    assert np.isfinite(familiarity.measure(embeddings, np.full(50, 2))).all()


def test_one_in_twenty_right_events_is_flagged():
    rng = np.random.default_rng(2)
    embeddings, labels = rng.normal(size=(2000, 4)), rng.integers(0, 3, size=2000)
    familiarity = set_limit(fit_familiarity(embeddings, labels, 3), embeddings, labels, np.full(2000, 0.9))
    distance = familiarity.measure(embeddings, labels)
    assert (distance > familiarity.limit).mean() == pytest.approx(0.05, abs=1e-3)
    low, median, high = np.quantile(distance, [0.16, 0.5, 0.84])
    assert (median, high - low) == pytest.approx((0.0, 2.0))  # in deviations from the median
    fresh = familiarity.measure(rng.normal(size=(2000, 4)), labels)
    assert (fresh > familiarity.limit).mean() == pytest.approx(0.05, abs=0.02)


def test_every_candidate_is_measured_at_the_exit_that_spoke():
    plain = Familiarity(np.eye(2), np.zeros((2, 2)), np.array([0.0, 10.0]), 0.0, 1.0, 0.0, 0.0)
    evidence = [
        make_evidence(exit_index=1, embedding=np.array([1.0, 2.0])),
        make_evidence(exit_index=2, embedding=np.array([1.0, 2.0])),
        make_evidence(exit_index=1, embedding=np.array([0.0, 1.0]), box=Box(1.0, 2.0, 1, 0.8), weakest_exit=-1.0),
    ]
    candidates = make_candidates(evidence, [True, False, True])
    far = unfamiliarities(candidates, {1: plain, 2: plain._replace(spread=2.0)})
    assert far.tolist() == [5.0, 2.5, 11.0]
    rows = features_of(candidates, far)
    assert rows.shape == (3, len(FEATURES))
    assert rows[2] == pytest.approx([1.0, np.log(4), -1.0, 6.0, 0.9])  # 0.3 nats of entropy, three times


# ---- intervals -------------------------------------------------------------------------------------------------------


def border_candidates(errors: np.ndarray, spreads: np.ndarray, rises: np.ndarray, recording=None) -> Candidates:
    """Right events at 1 and 2 s whose true borders lie `errors` (events, 2) scales inwards."""
    evidence = [
        make_evidence(onset_spread=spread, onset_rise=rise, offset_spread=2 * spread, offset_rise=rise)
        for spread, rise in zip(spreads, rises, strict=True)
    ]
    truth = []
    for (first, last), spread, rise in zip(errors, spreads, rises, strict=True):
        onset, offset = (border_scale(factor * spread, rise, BORDER_FLOOR_S) for factor in (1, 2))
        truth.append(Truth(True, 1.0 + onset * first, 2.0 - offset * last))
    return make_candidates(evidence, np.ones(len(errors), bool), recording, truth=truth)


def test_both_borders_share_an_interval_that_is_counted_inwards():
    spreads, rises = np.full(400, 0.05), np.full(400, 0.1)
    errors = np.random.default_rng(0).uniform(-1, 3, size=(400, 2))
    fitted = fit_borders(border_candidates(errors, spreads, rises), np.ones(400, bool))
    low, high = np.quantile(errors, [0.05, 0.95])
    assert fitted["floor"] == BORDER_FLOOR_S
    # never inside the plain quantiles, and hardly outside with 800 errors
    assert low - 0.1 <= fitted["outwards"] <= low and high <= fitted["inwards"] <= high + 0.1


def test_only_chosen_events_count():
    errors = np.concatenate([np.random.default_rng(0).uniform(-1, 1, size=(200, 2)), np.full((50, 2), 40.0)])
    nothing = np.zeros(250)
    fitted = fit_borders(border_candidates(errors, nothing, nothing), np.arange(250) < 200)
    assert fitted["inwards"] <= 1.0


def test_recordings_with_errors_of_their_own_widen_the_interval():
    rng = np.random.default_rng(0)
    own = np.repeat(rng.normal(size=40), 10)
    errors = np.stack([own, own], axis=1) + 0.1 * rng.normal(size=(400, 2))
    nothing, chosen = np.zeros(400), np.ones(400, bool)
    alike = fit_borders(border_candidates(errors, nothing, nothing, np.repeat(np.arange(40), 10)), chosen)
    apart = fit_borders(border_candidates(errors, nothing, nothing), chosen)
    assert alike["inwards"] - alike["outwards"] > 1.1 * (apart["inwards"] - apart["outwards"])


def test_nine_of_ten_borders_of_new_recordings_are_covered():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(20):
        spreads, rises = rng.exponential(0.05, size=260), rng.uniform(0, 0.5, size=260)
        errors = rng.standard_t(4, size=(260, 2)) + 0.3
        fitted = fit_borders(border_candidates(errors[:60], spreads[:60], rises[:60]), np.ones(60, bool))
        covered.append(((errors[60:] >= fitted["outwards"]) & (errors[60:] <= fitted["inwards"])).mean())
    assert 0.88 <= np.mean(covered) <= 0.96


def test_groups_by_hand():
    # two groups of thirty: 0.2 with a share of 0.2, and 0.8 with a share of 0.5, 0.3 away
    confidence, right = np.repeat([0.2, 0.8], 30), np.tile(np.arange(30) % 5 == 0, 2)
    right[30:] = np.arange(30) < 15
    assert groups_covered(confidence, confidence, confidence, right) == 0.5
    # the binomial error of 0.8 over thirty is 1.645 x sqrt(0.78 x 0.22 / 30) = 0.124; the interval must hold the rest
    needed = np.sqrt(0.3**2 - 1.6449**2 * (25 / 32) * (7 / 32) / 30)
    for width, covered in ((needed - 0.005, 0.5), (needed + 0.005, 1.0)):
        assert groups_covered(confidence, confidence - width, confidence + width, right) == covered


def test_calibrated_intervals_are_not_widened():
    rng = np.random.default_rng(0)
    middle = rng.normal(size=3000) * 2
    right = rng.random(3000) < sigmoid(middle)
    assert widen_until_covered(sigmoid(middle), np.full(3000, 0.3), middle, right) == 1.0


@pytest.mark.parametrize(("bias", "at_least", "at_most"), [(0.8, 1.1, 2.9), (1.4, 2.0, 3.0)])
def test_intervals_that_are_too_narrow_are_widened(bias, at_least, at_most):
    rng = np.random.default_rng(1)
    truth = rng.normal(size=6000)
    middle = truth + bias  # overconfident, with intervals of 0.5 logits
    factor = widen_until_covered(sigmoid(middle), np.full(6000, 0.5), middle, rng.random(6000) < sigmoid(truth))
    assert at_least <= factor <= at_most


def test_what_cannot_be_covered_gets_the_widest():
    middle = np.full(4 * GROUP_SIZE, 5.0)
    wrong = np.zeros(4 * GROUP_SIZE, bool)
    assert widen_until_covered(sigmoid(middle), np.full(4 * GROUP_SIZE, 0.01), middle, wrong) == pytest.approx(3.0)


def test_a_table_holds_what_decisions_need():
    evidence = [make_evidence(), make_evidence(box=Box(1.0, 2.0, 1, 0.9)), make_evidence()]
    candidates = make_candidates(evidence, [True, False, True], [0, 2, 2], num_files=4)
    table = table_of(candidates, np.array([0.9, 0.5, 0.7]), np.array([False, True, False]))
    assert table.confidence.tolist() == [0.9, 0.5, 0.7] and table.label.tolist() == [0, 1, 0]
    assert table.right.tolist() == [True, False, True] and table.recording.tolist() == [0, 2, 2]
    assert (table.num_recordings, table.duration_s) == (4, 40.0)
    assert table.num_events.tolist() == [1, 0, 1, 0] and table.unfamiliar.tolist() == [False, True, False]


# ---- exits -----------------------------------------------------------------------------------------------------------

DOUBTS = np.array([[0.0, 1.0, 2.0, 3.0]])  # of exit 1 in four windows
LOSSES = np.array([[1.0, 1.0, 2.0, 5.0], [1.0, 1.0, 1.0, 1.0]])  # of exits 1 and 2


@pytest.mark.parametrize(
    ("allowed_rise", "num_early"),
    [
        (0.0, 2),  # the first two windows lose nothing
        (0.2, 2),  # the third would raise the mean from 1 to 1.25
        (0.25, 3),
        (100.0, 3),  # a limit at the largest doubt leaves that window to the deepest exit
    ],
)
def test_doubt_limits_let_as_many_windows_stop_as_the_loss_allows(allowed_rise, num_early):
    (limit,) = fit_doubt_limits(DOUBTS, LOSSES, allowed_rise)
    assert (DOUBTS[0] < limit).sum() == num_early


def test_no_window_stops_early_where_each_would_lose():
    assert fit_doubt_limits(DOUBTS, np.array([[2.0] * 4, [1.0] * 4]), 0.0) == [0.0]


def test_every_exit_has_the_same_quantile_of_its_doubts():
    doubts = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, 10.0, 20.0, 30.0]])
    first, second = fit_doubt_limits(doubts, np.ones((3, 4)), 0.1)
    assert (first, second) == (3.0, 30.0)
    # the first exit is useless, the second as good as the third: what the first takes must be paid for
    losses = np.array([[3.0] * 4, [1.0] * 4, [1.0] * 4])
    first, second = fit_doubt_limits(doubts, losses, 0.5)
    assert second == pytest.approx(10 * first) and (doubts[0] < first).sum() == 1


def test_a_model_with_one_exit_has_no_limits():
    assert fit_doubt_limits(np.zeros((0, 4)), np.ones((1, 4)), 0.1) == []
