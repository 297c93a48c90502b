"""Decoding on scores drawn by hand, and what must hold for any scores."""

import numpy as np
import pytest

from modeling_easysed.decoding_easysed import (
    PARAMETERS,
    Box,
    candidate_boxes,
    class_parameters,
    decode,
    decoding_for_exit,
    frame_borders,
)

FRAME_S = 0.1
METHODS = tuple(PARAMETERS)


def borders_of(num_frames: int) -> np.ndarray:
    return np.arange(num_frames + 1) * FRAME_S


def steps(*levels_and_frames: tuple[float, int]) -> np.ndarray:
    """(frames, 1) of constant stretches."""
    return np.concatenate([np.full(num_frames, level) for level, num_frames in levels_and_frames])[:, None]


def random_scores(seed: int, num_frames: int = 200, num_classes: int = 4) -> np.ndarray:
    """Scores that rise and fall like a network's: smoothed noise through a sigmoid."""
    noise = np.random.default_rng(seed).normal(size=(num_frames + 14, num_classes))
    smooth = np.stack([np.convolve(noise[:, k], np.ones(15) / 15, "valid") for k in range(num_classes)], axis=1)
    return 1 / (1 + np.exp(2 - 12 * smooth))


def by_hand(method: str, **parameters: float) -> dict:
    return {"method": method, "default": parameters}


# ---- boxes by hand ---------------------------------------------------------------------------------------------------


def test_a_rectangle_becomes_one_box_with_its_level_as_score():
    scores = steps((0.0, 10), (0.8, 15), (0.0, 25))
    assert decode(scores, borders_of(50)) == [Box(pytest.approx(1.0), pytest.approx(2.5), 0, pytest.approx(0.8))]


def test_events_that_touch_the_file_borders_are_found_there():
    scores = steps((0.9, 10), (0.0, 20), (0.7, 10))
    found = decode(scores, borders_of(40))
    assert [(box.onset, box.offset) for box in found] == [(0.0, pytest.approx(1.0)), (pytest.approx(3.0), 4.0)]


def test_an_event_as_long_as_the_file():
    assert decode(steps((0.9, 20)), borders_of(20)) == [Box(0.0, pytest.approx(2.0), 0, pytest.approx(0.9))]


def test_one_frame_is_enough():
    assert decode(steps((0.9, 1)), np.array([0.0, 0.1])) == [Box(0.0, 0.1, 0, pytest.approx(0.9))]


@pytest.mark.parametrize(("dip", "num_boxes"), [(0.0, 2), (0.1, 2), (0.2, 1), (0.5, 1)])
def test_the_relative_limit_joins_across_dips_above_a_share_of_the_level(dip, num_boxes):
    scores = steps((0.0, 10), (0.8, 10), (dip, 10), (0.8, 10), (0.0, 10))
    decoding = by_hand("boxes", relative_limit=6.0, absolute_limit=0.0)  # joins where the dip is above 0.8 / 6 = 0.133
    assert len(decode(scores, borders_of(50), decoding)) == num_boxes


@pytest.mark.parametrize(("limit", "num_boxes"), [(0.29, 2), (0.31, 1)])
def test_the_absolute_limit_joins_across_dips_that_are_this_shallow(limit, num_boxes):
    scores = steps((0.0, 10), (0.8, 10), (0.5, 10), (0.8, 10), (0.0, 10))
    decoding = by_hand("boxes", relative_limit=1.0, absolute_limit=limit)
    assert len(candidate_boxes(scores, borders_of(50), decoding)) == num_boxes


def test_the_edge_level_decides_whether_a_faint_outskirt_belongs_to_the_event():
    scores = steps((0.0, 10), (0.2, 10), (0.8, 20), (0.0, 10))  # the outskirt is a quarter of the level
    onsets = [
        decode(scores, borders_of(50), by_hand("boxes", edge_level=edge_level))[0].onset for edge_level in (0.2, 0.3)
    ]
    assert onsets == pytest.approx([1.0, 2.0])


def test_the_score_is_a_quantile_of_the_probabilities_inside():
    scores = np.concatenate([np.zeros(5), [0.5, 0.6, 0.7, 0.8, 0.9], np.zeros(5)])[:, None]
    for quantile in (0.0, 0.3, 0.75, 1.0):
        (box,) = candidate_boxes(scores, borders_of(15), by_hand("boxes", score_quantile=quantile))
        assert (box.onset, box.offset) == (pytest.approx(0.5), pytest.approx(1.0))
        assert box.score == pytest.approx(np.quantile(scores[5:10, 0], quantile))


def test_short_events_are_dropped_and_those_of_exactly_the_shortest_duration_stay():
    scores = steps((0.0, 10), (0.9, 2), (0.0, 10), (0.9, 3), (0.0, 10))
    found = decode(scores, borders_of(35), by_hand("boxes", min_duration_s=0.3, filter_s=0.1))
    assert [box.onset for box in found] == pytest.approx([2.2])


def test_every_class_has_its_own_parameters():
    scores = np.tile(steps((0.0, 10), (0.6, 10), (0.0, 10)), 3)
    decoding = {"default": {"threshold": 0.7}, "classes": {"0": {"threshold": 0.5}, "2": {"min_duration_s": 0.2}}}
    assert [box.class_index for box in decode(scores, borders_of(30), decoding)] == [0]
    assert class_parameters(decoding, 3)["threshold"].tolist() == [0.5, 0.7, 0.7]


def test_a_score_equal_to_the_threshold_is_no_detection():
    scores = steps((0.0, 10), (0.5, 10), (0.0, 10))
    assert decode(scores, borders_of(30), by_hand("boxes", threshold=0.5)) == []
    assert len(candidate_boxes(scores, borders_of(30), by_hand("boxes", threshold=0.5))) == 1


# ---- threshold method by hand ----------------------------------------------------------------------------------------


def test_hysteresis_starts_high_and_keeps_low():
    scores = steps((0.0, 10), (0.4, 5), (0.8, 5), (0.4, 5), (0.0, 10), (0.4, 5), (0.0, 5))
    decoding = by_hand("threshold", threshold=0.6, low_ratio=0.5, median_s=0.0, max_gap_s=0.0)
    assert decode(scores, borders_of(45), decoding) == [Box(1.0, pytest.approx(2.5), 0, pytest.approx(0.8))]
    plain = by_hand("threshold", threshold=0.6, low_ratio=1.0, median_s=0.0, max_gap_s=0.0)
    assert [(box.onset, box.offset) for box in decode(scores, borders_of(45), plain)] == [(1.5, 2.0)]


def test_gaps_up_to_the_largest_are_closed():
    scores = steps((0.0, 10), (0.9, 5), (0.0, 3), (0.9, 5), (0.0, 4), (0.9, 5), (0.0, 5))
    decoding = by_hand("threshold", median_s=0.0, max_gap_s=0.3)
    found = decode(scores, borders_of(37), decoding)
    assert [(box.onset, box.offset) for box in found] == [pytest.approx((1.0, 2.3)), pytest.approx((2.7, 3.2))]


def test_the_median_filter_removes_clicks_and_fills_holes():
    scores = steps((0.0, 10), (0.9, 2), (0.0, 8), (0.9, 4), (0.0, 2), (0.9, 4), (0.0, 10))
    found = decode(scores, borders_of(40), by_hand("threshold", median_s=0.5, max_gap_s=0.0))
    assert [(box.onset, box.offset) for box in found] == [pytest.approx((2.0, 3.0))]


# ---- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_selects_boxes_and_moves_no_border(seed):
    scores, borders = random_scores(seed), borders_of(200)
    candidates = candidate_boxes(scores, borders)
    for threshold in (0.1, 0.4, 0.7):
        expected = [box for box in candidates if box.score > threshold]
        assert decode(scores, borders, by_hand("boxes", threshold=threshold)) == expected
    assert len(candidates) > 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_events_are_sorted_within_the_file_and_disjoint_within_a_class(method, seed):
    num_frames = 150
    borders = frame_borders(num_frames, FRAME_S, (num_frames - 1) * FRAME_S + 0.03)
    found = candidate_boxes(random_scores(seed, num_frames), borders, by_hand(method, threshold=0.4))
    assert found and found == sorted(found)
    for box in found:
        assert borders[0] <= box.onset < box.offset <= borders[-1]
        assert 0 <= box.score <= 1
    for index in range(4):
        own = [box for box in found if box.class_index == index]
        assert all(first.offset <= second.onset for first, second in zip(own, own[1:], strict=False))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_shifting_the_scores_shifts_the_events(method, seed):
    silence = np.zeros((40, 4))
    scores = np.concatenate([silence, random_scores(seed, 100), silence])
    shifted = np.concatenate([silence[:20], scores, silence[:20]])
    parameters = by_hand(method, threshold=0.4)
    before = candidate_boxes(scores, borders_of(180), parameters)
    after = candidate_boxes(shifted, borders_of(220), parameters)
    assert len(before) == len(after) > 0
    for early, late in zip(before, after, strict=True):
        assert (late.onset, late.offset) == pytest.approx((early.onset + 2.0, early.offset + 2.0))
        assert (late.class_index, late.score) == (early.class_index, pytest.approx(early.score))


PARAMETERS_THAT_SPREAD = {"relative_limit": 1000.0, "absolute_limit": 1.0, "edge_level": 0.0}


@pytest.mark.parametrize("parameters", [{}, PARAMETERS_THAT_SPREAD, {"filter_s": 1.5}])
@pytest.mark.parametrize("seed", range(5))
def test_what_lies_between_two_silences_depends_on_nothing_beyond_them(seed, parameters):
    rng = np.random.default_rng(seed)
    pieces, decoding = [], by_hand("boxes", **parameters)
    for number in range(6):
        piece = np.maximum(random_scores(10 * seed + number, int(rng.integers(5, 80)), 1), 0.03)
        pieces += [piece, rng.uniform(0.0, 0.019, (int(rng.integers(15, 40)), 1))]  # 1.5 s and more
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])[:-1] * FRAME_S
    together = candidate_boxes(np.concatenate(pieces), borders_of(sum(map(len, pieces))), decoding)
    alone = [
        box._replace(onset=box.onset + start, offset=box.offset + start)
        for piece, start in zip(pieces[::2], starts[::2], strict=True)
        for box in candidate_boxes(piece, borders_of(len(piece)), decoding)
    ]
    assert len(alone) >= 6
    assert np.array(together) == pytest.approx(np.array(sorted(alone)))


@pytest.mark.parametrize(("quiet_s", "num_boxes"), [(0.9, 1), (1.0, 2)])
def test_no_event_spans_a_second_of_silence(quiet_s, num_boxes):
    scores = steps((0.9, 10), (0.019, round(quiet_s / FRAME_S)), (0.9, 10))
    decoding = by_hand("boxes", absolute_limit=1.0)  # joins whatever the dip
    assert len(candidate_boxes(scores, borders_of(len(scores)), decoding)) == num_boxes


@pytest.mark.parametrize("method", METHODS)
def test_classes_do_not_influence_each_other(method):
    scores, borders = random_scores(7), borders_of(200)
    together = candidate_boxes(scores, borders, by_hand(method, threshold=0.4))
    alone = [
        box._replace(class_index=index)
        for index in range(4)
        for box in candidate_boxes(scores[:, [index]], borders, by_hand(method, threshold=0.4))
    ]
    assert [box[:3] for box in together] == [box[:3] for box in sorted(alone)]
    assert [box.score for box in together] == pytest.approx([box.score for box in sorted(alone)])


def test_faint_ripples_in_a_long_file_make_sound_boxes():
    scores = random_scores(3, 30000, 2) * np.array([1.0, 1e-7])  # sums of 1e4 and ripples of 1e-9
    decoding = by_hand("boxes", absolute_limit=0.0, relative_limit=3.0, edge_level=0.95, min_duration_s=0.0)
    found = candidate_boxes(scores, borders_of(30000), decoding)
    durations = np.array([box.offset - box.onset for box in found])
    assert len(found) > 1000 and durations.min() > FRAME_S / 2
    assert np.isfinite([box.score for box in found]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scores", [np.zeros((30, 3)), np.zeros((0, 3)), np.zeros((30, 0))])
def test_nothing_in_nothing_out(method, scores):
    assert decode(scores, borders_of(len(scores)), {"method": method}) == []


def test_float32_scores_are_welcome():
    scores = random_scores(1)
    found = candidate_boxes(scores.astype(np.float32), borders_of(200))
    assert [box[:3] for box in found] == [box[:3] for box in candidate_boxes(scores, borders_of(200))]


# ---- parameters and borders ------------------------------------------------------------------------------------------


def test_each_exit_has_its_own_parameters():
    config_decoding = {
        "method": "threshold",
        "id": "12ab34cd",
        "tuned_on": {"split": "validation"},
        "exits": {"1": {"classes": {"0": {"threshold": 0.2}}}, "3": {"default": {"threshold": 0.3}}},
    }
    first, second, third = (decoding_for_exit(config_decoding, index) for index in (1, 2, 3))
    assert class_parameters(first, 2)["threshold"].tolist() == [0.2, 0.5]
    assert class_parameters(second, 2)["threshold"].tolist() == [0.5, 0.5]
    assert class_parameters(third, 2)["threshold"].tolist() == [0.3, 0.3]
    assert first["method"] == third["method"] == "threshold"
    assert decoding_for_exit(None, 1) is None
    assert decoding_for_exit({"method": "boxes"}, 2) == {"method": "boxes"}


def test_frame_borders_cover_the_file_and_are_centred_on_the_frames():
    borders = frame_borders(251, 0.04, 10.0)
    assert borders[:3] == pytest.approx([0.0, 0.02, 0.06])
    assert borders[-2:] == pytest.approx([9.98, 10.0])
    assert frame_borders(1, 0.04, 1 / 16000).tolist() == [0.0, 1 / 16000]
    assert frame_borders(250, 0.04, 9.9999)[-1] == 9.9999  # the last centre is at 9.96


@pytest.mark.parametrize(("num_frames", "duration_s"), [(251, 9.9), (251, 10.2), (0, 0.0), (1, 0.0)])
def test_frames_that_do_not_come_from_the_file_are_refused(num_frames, duration_s):
    with pytest.raises(ValueError, match="cannot come from a file of duration_s"):
        frame_borders(num_frames, 0.04, duration_s)


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"method": "magic"}, "method must be one of .* got 'magic'"),
        ({"exits": {}}, r"got \['exits'\]: pick one exit .* with decoding_for_exit"),
        ({"default": {"median_s": 0.1}}, "must be one of .* for the method 'boxes', got 'median_s'"),
        ({"default": {"threshold": 1.5}}, r"threshold of default must be in \[0.0, 1.0\], got 1.5"),
        ({"default": {"threshold": "0.5"}}, "threshold of default must be in .* got '0.5'"),
        ({"default": {"threshold": True}}, "threshold of default must be in .* got True"),
        ({"default": {"filter_s": float("nan")}}, "filter_s of default must be in .* got nan"),
        ({"default": {"relative_limit": 0.5}}, r"relative_limit of default must be in \[1.0, inf\], got 0.5"),
        ({"classes": {"1": {"min_duration_s": -1}}}, "min_duration_s of class 1 must be in .* got -1"),
        ({"classes": {"2": {}}}, "keyed by class indices 0 to 1, got '2'"),
        ({"classes": {"dog_bark": {}}}, "keyed by class indices 0 to 1, got 'dog_bark'"),
        ({"method": "threshold", "default": {"low_ratio": 2}}, "low_ratio of default must be in .* got 2"),
    ],
)
def test_bad_parameters_are_named(decoding, message):
    with pytest.raises(ValueError, match=message):
        decode(np.zeros((10, 2)), borders_of(10), decoding)


@pytest.mark.parametrize(
    ("scores", "borders", "message"),
    [
        (np.zeros(10), borders_of(10), r"probabilities must have shape \(frames, classes\), got \(10,\)"),
        (np.zeros((10, 2)), borders_of(9), r"borders must have shape \(frames \+ 1,\) = \(11,\), got \(10,\)"),
        (np.zeros((2, 1)), np.array([0.0, 0.2, 0.2]), "borders must be finite and increasing"),
        (np.zeros((2, 1)), np.array([0.0, np.nan, 0.2]), "borders must be finite and increasing"),
        (np.full((2, 1), -3.0), borders_of(2), "apply a sigmoid to logits first"),
        (np.full((2, 1), np.nan), borders_of(2), r"probabilities must be in \[0, 1\], got NaN"),
    ],
)
def test_bad_scores_are_named(scores, borders, message):
    with pytest.raises(ValueError, match=message):
        decode(scores, borders)
