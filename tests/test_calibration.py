"""Calibration: what config.json holds and what it says of a candidate, against direct computations."""

import json
import math

import numpy as np
import pytest
from test_evidence import make_evidence

from modeling_easysed.calibration_easysed import (
    FEATURES,
    QUANTILE,
    Calibration,
    CalibrationError,
    Familiarity,
    border_scale,
    calibration_id,
    feature_row,
    map_of_class,
    moderated,
    pack,
    setting_name,
    unpack,
)
from modeling_easysed.decoding_easysed import Box

LABELS = ["dog_bark", "rain"]
NO_COVARIANCE = [0.0] * 15  # upper half of five by five


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def make_familiarity(size: int = 2, num_classes: int = 2, **changes) -> Familiarity:
    """Distance = squared length of the embedding."""
    numbers = {"median": 0.0, "spread": 1.0, "limit": 9.0, "doubt_limit": 4.0, **changes}
    return Familiarity(np.eye(size), np.zeros((num_classes, size)), np.zeros(num_classes), **numbers)


def make_map(coefficients=(0.0, 1.0, 0.0, 0.0, 0.0), covariance=NO_COVARIANCE) -> dict:
    return {"coefficients": list(coefficients), "covariance": list(covariance)}


def make_saved(**setting) -> dict:
    """One exit, one setting: confidence = score, no interval factor, borders that lie from one scale (at least 0.4 s)
    outwards to two inwards."""
    fitted = {
        "floor": 0.05,
        **make_map(),
        "classes": {name: make_map() for name in LABELS},
        "interval_factor": 1.0,
        "border": {"floor": 0.4, "outwards": -1.0, "inwards": 2.0},
        **setting,
    }
    exits = {"1": {"temperature": 1.5, "familiarity": make_familiarity().save(), "settings": {"mc+shifts": fitted}}}
    return {"id": "12345678", "labels": LABELS, "fitted_on": {}, "doubt_limits": {"1": 0.2}, "exits": exits}


def judge(evidence, saved: dict | None = None, duration: float = 10.0):
    calibration = Calibration(make_saved() if saved is None else saved, LABELS)
    return calibration.judge([evidence], "mc+shifts", duration)[0]


# ---- what config.json holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
def test_packing_keeps_every_value(dtype):
    values = (np.arange(12) * 17).astype(dtype).reshape(3, 4)
    for packed in (values, values[:, ::2], values.T):  # also where memory is not in order
        assert unpack(json.loads(json.dumps(pack(packed))), dtype).tolist() == packed.ravel().tolist()
    assert len(unpack(pack(values[:0]), dtype)) == 0


def test_a_setting_is_named_by_method_and_shifts():
    assert [setting_name("mc", shifts) for shifts in (0, 1, 2)] == ["mc", "mc+shifts", "mc+shifts"]


def test_the_id_follows_everything_but_the_date():
    saved = make_saved()
    first = calibration_id(saved)
    assert len(first) == 8 and first == calibration_id({**saved, "id": "other", "date": "2026-01-01"})
    assert first == calibration_id(json.loads(json.dumps(saved)))
    assert first != calibration_id({**saved, "doubt_limits": {"1": 0.3}})


def random_familiarity(rng: np.random.Generator, size: int = 16, num_classes: int = 5):
    """Means, centre and the two precision matrices, and the same as a Familiarity."""
    means = 3 * rng.normal(size=(num_classes, size))
    centre = means.mean(0)
    factor = rng.normal(size=(size, 3 * size))
    within = np.linalg.inv(factor @ factor.T / (3 * size) + 0.01 * np.eye(size))
    overall = np.linalg.inv(np.linalg.inv(within) + means.T @ means / num_classes)
    linear = -2 * means @ within + 2 * overall @ centre
    constant = np.array([mean @ within @ mean for mean in means]) - centre @ overall @ centre
    return means, centre, within, overall, Familiarity(within - overall, linear, constant, 2.0, 4.0, 3.0, 1.5)


def test_unfamiliarity_is_a_relative_mahalanobis_distance():
    rng = np.random.default_rng(0)
    means, centre, within, overall, familiarity = random_familiarity(rng)
    classes = rng.integers(0, 5, size=40)
    embeddings = means[classes] + 2 * rng.normal(size=(40, 16))
    expected = []
    for value, label in zip(embeddings, classes, strict=True):
        own, all_classes = value - means[label], value - centre
        expected.append((own @ within @ own - all_classes @ overall @ all_classes - 2.0) / 4.0)
    assert familiarity.measure(embeddings, classes) == pytest.approx(expected, rel=1e-9)


def test_saving_keeps_distances():
    rng = np.random.default_rng(1)
    means, *_, familiarity = random_familiarity(rng)
    classes = rng.integers(0, 5, size=40)
    embeddings = means[classes] + 2 * rng.normal(size=(40, 16))
    loaded = Familiarity.load(json.loads(json.dumps(familiarity.save())))
    before, after = (one._replace(median=0.0, spread=1.0).measure(embeddings, classes) for one in (familiarity, loaded))
    assert after == pytest.approx(before, rel=1e-4, abs=1e-3)
    assert (loaded.median, loaded.spread, loaded.limit, loaded.doubt_limit) == (2.0, 4.0, 3.0, 1.5)
    assert loaded.quadratic == pytest.approx(loaded.quadratic.T)


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_a_spread_survives_saving_however_small():
    loaded = Familiarity.load(make_familiarity(spread=1e-6).save())
    assert np.isfinite(loaded.measure(np.zeros((1, 2)), np.array([0]))).all()


def test_maps_hold_the_upper_half_of_their_covariance():
    coefficients, covariance = map_of_class(make_map([1, 2, 3, 4, 5], range(15)))
    assert coefficients.tolist() == [1, 2, 3, 4, 5]
    assert covariance.tolist() == [
        [0, 1, 2, 3, 4],
        [1, 5, 6, 7, 8],
        [2, 6, 9, 10, 11],
        [3, 7, 10, 12, 13],
        [4, 8, 11, 13, 14],
    ]


# ---- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["dog_bark"], ["rain", "dog_bark"], ["dog_bark", "rooster"]])
def test_another_class_set_is_named(labels):
    with pytest.raises(CalibrationError, match=r"must be of the model's classes .*, got one of \['dog_bark', 'rain'\]"):
        Calibration(make_saved(), labels)


def test_nothing_is_no_calibration():
    with pytest.raises(CalibrationError, match="classes .* got one of None: run training/calibrate.py"):
        Calibration({}, LABELS)


@pytest.mark.parametrize("name", ["id", "exits", "fitted_on"])
def test_a_missing_part_is_named(name):
    saved = {key: value for key, value in make_saved().items() if key != name}
    with pytest.raises(CalibrationError, match=rf"calibration lacks \['{name}'\]: run training/calibrate.py"):
        Calibration(saved, LABELS)


def test_a_missing_setting_says_what_there_is():
    calibration = Calibration(make_saved(), LABELS)
    assert calibration.check(1, "mc+shifts")["floor"] == calibration.floor(1, "mc+shifts") == 0.05
    with pytest.raises(CalibrationError, match=r"no map for exit 1 with moments \(has: mc\+shifts\)"):
        calibration.check(1, "moments")
    with pytest.raises(CalibrationError, match=r"no map for exit 2 with mc\+shifts \(has: none\)"):
        calibration.floor(2, "mc+shifts")
    with pytest.raises(CalibrationError, match=r"no map for exit 1 with none"):
        calibration.judge([make_evidence()], "none", 10.0)


def test_temperatures_and_doubt_limits_are_those_of_the_exits():
    saved = make_saved()
    saved["exits"]["2"] = {**saved["exits"]["1"], "temperature": 0.8}
    calibration = Calibration(saved, LABELS)
    assert calibration.temperatures(np.array([1, 2, 2, 1])).tolist() == [1.5, 0.8, 0.8, 1.5]
    assert calibration.doubt_limits(1) == []
    assert calibration.doubt_limits(3) == [0.2, 0.0]  # an exit without a limit is never sure enough


# ---- confidence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("middle", [-4.0, -1.5, 0.0, 0.7, 3.0])
@pytest.mark.parametrize("variance", [0.0, 0.05, 0.5, 2.0])
def test_the_moderated_confidence_is_the_mean_over_the_maps_uncertainty(middle, variance):
    grid = np.linspace(-8, 8, 4001)
    weights = np.exp(-(grid**2) / 2)
    expected = (sigmoid(middle + math.sqrt(variance) * grid) * weights).sum() / weights.sum()
    assert moderated(middle, variance) == pytest.approx(expected, abs=0.01)


def test_confidence_stays_a_probability_far_out():
    assert moderated(-1000.0, 0.0) == 0.0 and moderated(1000.0, 0.0) == 1.0


def test_features_are_a_row_of_known_order():
    row = feature_row(make_evidence(box=Box(1, 2, 0, 0.8), weakest_exit=-1.5, total=0.5), 2.5)
    assert FEATURES == ("one", "score", "weakest_exit", "unfamiliarity", "entropy") and len(row) == len(FEATURES)
    assert row == pytest.approx([1.0, math.log(4), -1.5, 2.5, 1.5])  # three times the entropy in nats
    assert feature_row(make_evidence(), 100.0)[3] == 6.0 and feature_row(make_evidence(), -100.0)[3] == -3.0


def test_confidence_and_interval_by_hand():
    # logit 0 and spreads of 0.3 and 0.4 logits make one of 0.5; no doubt about the map
    evidence = make_evidence(box=Box(1.0, 2.0, 0, 0.5), sample_spread=0.3, shift_spread=0.4)
    found = judge(evidence)
    assert found.confidence == pytest.approx(0.5)
    assert found.confidence_low == pytest.approx(sigmoid(-QUANTILE * 0.5))
    assert found.confidence_high == pytest.approx(sigmoid(QUANTILE * 0.5))
    wide = judge(evidence, make_saved(interval_factor=2.0))
    assert wide.confidence_high == pytest.approx(sigmoid(QUANTILE))
    # doubt about the intercept alone: its variance of 0.75 joins 0.25
    doubtful = make_map(covariance=[0.75] + [0.0] * 14)
    unsure = judge(evidence, make_saved(classes={"dog_bark": doubtful}))
    assert unsure.confidence_high == pytest.approx(sigmoid(QUANTILE))


def test_every_class_has_its_own_map():
    own_map, shared_map = make_map((2.0, 0.0, 0.0, 0.0, 0.0)), make_map((-1.0, 0.0, 0.0, 0.0, 0.0))
    saved = make_saved(classes={"dog_bark": own_map}, **shared_map)
    own, other = judge(make_evidence(), saved), judge(make_evidence(box=Box(1.0, 2.0, 1, 0.9)), saved)
    assert (own.confidence, own.is_calibrated) == (pytest.approx(sigmoid(2.0)), True)
    assert (other.confidence, other.is_calibrated) == (pytest.approx(sigmoid(-1.0)), False)  # that of all classes


def test_a_class_may_be_marked_uncalibrated():
    saved = make_saved(classes={"dog_bark": {**make_map((2.0, 0.0, 0.0, 0.0, 0.0)), "uncalibrated": True}})
    assert not judge(make_evidence(), saved).is_calibrated


def test_unfamiliar_is_beyond_the_limit_and_counts_in_the_map():
    saved = make_saved(classes={"dog_bark": make_map((0.0, 0.0, 0.0, -1.0, 0.0))})
    known = judge(make_evidence(embedding=np.array([0.0, 3.0])), saved)  # distance 9
    assert (known.unfamiliarity, known.is_unfamiliar) == (pytest.approx(9.0), False)
    assert known.confidence == pytest.approx(sigmoid(-6.0))  # clipped in the map alone
    assert judge(make_evidence(embedding=np.array([0.1, 3.0])), saved).is_unfamiliar
    assert known.seems_unfamiliar and not judge(make_evidence(embedding=np.array([0.0, 2.0])), saved).seems_unfamiliar


def test_the_entropy_inside_counts_in_the_map():
    # 0.5 nats make a feature of 1.5; an uncertainty of 0.4 about its coefficient one of 0.4 x 1.5^2 = 0.9
    saved = make_saved(classes={"dog_bark": make_map((0.0, 0.0, 0.0, 0.0, -2.0), [0.0] * 14 + [0.4])})
    found = judge(make_evidence(total=0.5), saved)
    assert found.confidence == pytest.approx(sigmoid(-3.0 / math.sqrt(1 + math.pi * 0.9 / 8)))
    assert found.confidence_high == pytest.approx(sigmoid(-3.0 + QUANTILE * math.sqrt(0.9)))
    assert judge(make_evidence(total=0.0), saved).confidence == pytest.approx(0.5)


def test_the_exit_that_spoke_judges():
    saved = make_saved()
    second = {**saved["exits"]["1"], "familiarity": make_familiarity(median=4.0, spread=2.0).save()}
    settings = {"mc+shifts": {**second["settings"]["mc+shifts"], "classes": {}, **make_map((3.0, 0.0, 0.0, 0.0, 0.0))}}
    saved["exits"]["2"] = {**second, "settings": settings}
    found = judge(make_evidence(exit_index=2), saved)
    assert (found.confidence, found.unfamiliarity) == pytest.approx((sigmoid(3.0), -2.0))


# ---- intervals -------------------------------------------------------------------------------------------------------


def test_the_scale_of_a_border():
    assert border_scale(0.3, 0.0, 0.4) == pytest.approx(0.5)
    assert border_scale(0.0, 3.0, 0.4) == pytest.approx(0.5)  # a tenth of the rise


def test_border_intervals_by_hand():
    evidence = make_evidence(
        box=Box(1.0, 2.0, 0, 0.9), onset_spread=0.3, onset_rise=0.0, offset_spread=0.0, offset_rise=3.0
    )
    found = judge(evidence)  # both scales are 0.5 s
    assert (found.onset_low, found.onset_high) == pytest.approx((0.5, 2.0))
    assert (found.offset_low, found.offset_high) == pytest.approx((1.0, 2.5))  # mirrored: inwards is earlier


def test_the_floor_of_borders_counts_where_samples_agree():
    agreed = {"onset_spread": 0.0, "onset_rise": 0.0, "offset_spread": 0.0, "offset_rise": 0.0}
    saved = make_saved(border={"floor": 0.02, "outwards": -2.0, "inwards": 5.0})
    found = judge(make_evidence(**agreed), saved)
    assert (found.onset_low, found.onset_high) == pytest.approx((0.96, 1.1))
    assert (found.offset_low, found.offset_high) == pytest.approx((1.9, 2.04))


def test_border_intervals_stay_in_the_recording_and_around_the_border():
    evidence = make_evidence(box=Box(0.1, 2.0, 0, 0.9), onset_spread=2.0, offset_spread=2.0)
    found = judge(evidence, duration=2.1)
    assert (found.onset_low, found.onset_high) == (found.offset_low, found.offset_high) == (0.0, 2.1)
    # errors of one sign only: the border itself is always inside
    found = judge(make_evidence(), make_saved(border={"floor": 0.4, "outwards": -2.0, "inwards": -1.0}))
    assert found.onset_low < found.onset_high == 1.0 and found.offset_low == 2.0 < found.offset_high
    found = judge(make_evidence(), make_saved(border={"floor": 0.4, "outwards": 1.0, "inwards": 2.0}))
    assert found.onset_low == 1.0 < found.onset_high and found.offset_low < found.offset_high == 2.0


def test_whatever_the_evidence_intervals_hold_what_they_are_of():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(5, 5))
    covariance = (factor @ factor.T)[np.triu_indices(5)]
    saved = make_saved(classes={"dog_bark": make_map(rng.normal(size=5), covariance)})
    calibration = Calibration(saved, LABELS)
    for _ in range(300):
        onset, offset = np.sort(rng.uniform(0, 5, size=2))
        names = (
            "weakest_exit",
            "sample_spread",
            "shift_spread",
            "onset_spread",
            "offset_spread",
            "onset_rise",
            "total",
        )
        values = dict(zip(names, rng.uniform(0, 3, size=len(names)), strict=True))
        box = Box(onset, offset, int(rng.integers(2)), rng.uniform())
        (one,) = calibration.judge([make_evidence(box=box, embedding=rng.normal(size=2), **values)], "mc+shifts", 5.0)
        assert 0 <= one.confidence_low <= one.confidence <= one.confidence_high <= 1
        assert 0 <= one.onset_low <= onset <= one.onset_high <= 5
        assert 0 <= one.offset_low <= offset <= one.offset_high <= 5
