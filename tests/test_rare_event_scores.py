"""Held-out scores: right boxes and false alarms by hand, thresholds that count what they say."""

import numpy as np
import pytest
from rare_event_scores import (
    FLOOR,
    Alarms,
    HeldOut,
    choose_threshold,
    cross_fitted,
    judge_columns,
    new_class_parameters,
    score_set,
    threshold_at,
)
from test_new_label import scene_set

PARAMETERS = {"filter_s": 0.08, "edge_level": 0.3, "score_quantile": 0.5, "min_duration_s": 0.04}


def line(*spans, num_frames=50):
    """Probabilities with a level between frames."""
    values = np.zeros(num_frames)
    for start, stop, level in spans:
        values[start:stop] = level
    return values


def judged(values, events):
    borders = np.arange(len(values) + 1) * 0.1
    return [(scores.tolist(), sorted(wrong)) for scores, wrong in
            judge_columns(values[:, None], borders, events, PARAMETERS)][0]  # fmt: skip


def test_a_box_on_the_event_is_right_and_others_are_not():
    scores, wrong = judged(line((10, 20, 0.8), (30, 40, 0.6)), [(1.0, 2.0)])
    assert scores == pytest.approx([0.8]) and wrong == pytest.approx([0.6])


def test_a_box_must_cover_half_of_the_event_and_lie_half_on_it():
    assert judged(line((10, 14, 0.8)), [(1.0, 2.0)]) == ([0.0], pytest.approx([0.8]))  # covers 0.4 of it
    assert judged(line((10, 15, 0.8)), [(1.0, 2.0)]) == (pytest.approx([0.8]), [])
    assert judged(line((10, 31, 0.8)), [(1.0, 2.0)]) == ([0.0], pytest.approx([0.8]))  # lies 10 / 21 on it
    assert judged(line((10, 30, 0.8)), [(1.0, 2.0)]) == (pytest.approx([0.8]), [])


def test_faint_boxes_are_no_false_alarms():
    assert judged(line((10, 20, FLOOR)), []) == ([], [])


def test_every_column_is_judged_alone():
    borders = np.arange(51) * 0.1
    values = np.stack([line((10, 20, 0.8)), line((30, 40, 0.6))], axis=1)
    (first, none), (zero, other) = judge_columns(values, borders, [(1.0, 2.0)], PARAMETERS)
    assert first.tolist() == pytest.approx([0.8]) and len(none) == 0
    assert zero.tolist() == [0.0] and other.tolist() == pytest.approx([0.6])


def test_a_set_is_scored_with_its_folds_and_hours():
    """Scenes of 10 s: scene 0 has an event at 1 to 2 s; scene 3, of fold 1, a false alarm."""
    scenes = scene_set(4)
    scenes.events[0] = [(1.0, 2.0)]
    scenes.targets = scenes.targets.new_zeros(4, 101)
    probabilities = np.stack([line(num_frames=101)] * 4)
    probabilities[0, 11:20], probabilities[3, 50:60] = 0.7, 0.4
    ((scores, groups, folds, wrong),) = score_set(scenes, probabilities[..., None], 2, PARAMETERS, 0.1)
    assert scores.tolist() == pytest.approx([0.7]) and groups.tolist() == [0] and folds.tolist() == [0]
    assert wrong.scores.tolist() == pytest.approx([0.4]) and wrong.folds.tolist() == [1]
    assert wrong.hours == pytest.approx([20 / 3600, 20 / 3600])


# ---- thresholds ------------------------------------------------------------------------------------------------------


def alarms(*scores, folds=None, hours=(0.5, 0.5)):
    own = np.zeros(len(scores), dtype=int) if folds is None else np.array(folds)
    return Alarms(np.array(scores, dtype=float), own, np.array(hours))


def held_out(scores, background, groups=None, folds=None, **changes):
    num = len(scores)
    groups = np.arange(num) if groups is None else np.array(groups)
    folds = np.arange(num) % 2 if folds is None else np.array(folds)
    return HeldOut(np.array(scores, dtype=float), groups, folds, changes.get("wrong", alarms()), background,
                   changes.get("rehearsal"))  # fmt: skip


def test_lowest_threshold_with_so_many_false_alarms():
    scores = np.array([0.9, 0.5, 0.7, 0.3])
    assert threshold_at(scores, 2.0, 1.0) == 0.5  # two of them are above
    assert threshold_at(scores, 0.5, 1.0) == 0.9  # none fits into half an hour
    assert threshold_at(scores, 4.0, 1.0) == FLOOR


def test_the_threshold_keeps_the_goal_on_background():
    held = held_out([0.95, 0.9, 0.6, 0.5], alarms(0.8, 0.7))
    chosen = choose_threshold(held, 1.0)
    assert held.background.at(chosen).count <= 1 and chosen >= 0.7
    assert choose_threshold(held, 2.0) < 0.6


def test_the_threshold_is_the_best_of_f1_where_the_goal_allows_all():
    """Without any false alarm the lowest scores are worth finding; many wrong boxes below 0.5 are worth avoiding."""
    clear = held_out([0.9, 0.8, 0.7, 0.2], alarms())
    assert choose_threshold(clear, 1.0) < 0.2
    littered = held_out([0.9, 0.8, 0.7, 0.2], alarms(), wrong=alarms(*[0.3] * 40))
    assert 0.3 < choose_threshold(littered, 1.0) < 0.75


def test_a_goal_holds_on_little_background_too():
    """In half an hour 1 per hour is none: the threshold lies above the loudest false alarm, whatever it costs."""
    short = held_out([0.95, 0.85, 0.8, 0.6], alarms(0.9, 0.4, hours=(0.25, 0.25)))
    assert short.threshold_at(1.0) == 0.9
    assert choose_threshold(short, 1.0) >= 0.9
    assert choose_threshold(short, 2.0) < 0.9  # one in half an hour


def test_a_goal_that_no_threshold_of_the_list_keeps():
    held = held_out([0.999], alarms(0.9995, 0.9999))
    assert choose_threshold(held, 1.0) == 0.9995


def test_recall_counts_recordings():
    held = held_out([0.9, 0.1, 0.9, 0.9], alarms(), groups=[0, 0, 4, 4])
    recall = held.recall_at(0.5)
    assert (recall.found, recall.total, recall.recordings) == (3, 4, 2)
    assert held.group_recall(0.5).tolist() == [0.5, 1.0]


def test_sensitivity_is_a_mean_over_rates():
    """One hour; 1, 3, 10 and 30 false alarms: thresholds 0.8, 0.6, then none above the floor."""
    held = held_out([0.85, 0.7, 0.5, 0.01], alarms(0.9, 0.8, 0.75, 0.6))
    assert held.threshold_at(1.0) == 0.8 and held.threshold_at(3.0) == 0.6
    assert held.sensitivity == pytest.approx((0.25 + 0.5 + 0.75 + 0.75) / 4)


def test_old_sounds_count_for_sensitivity():
    held = held_out([0.85, 0.7], alarms(), rehearsal=alarms(0.9, 0.8))
    assert held.threshold_at(1.0) == FLOOR  # two in two hours
    assert held_out([0.85, 0.7], alarms(), rehearsal=alarms(0.9, 0.8, 0.75)).threshold_at(1.0) == 0.75


def test_a_part_has_its_share_of_false_alarms():
    """One per hour in 1.0 h is one; four folds of five may have it too, though it does not fit into 0.8 h."""
    scores, folds = [0.9, 0.8, 0.7, 0.6, 0.5], range(5)
    held = held_out(
        [0.95] * 5, alarms(*scores, folds=folds, hours=(0.2,) * 5), folds=folds, wrong=alarms(hours=(0.2,) * 5)
    )
    assert held.threshold_at(1.0) == 0.8
    assert held.of_folds([1, 2, 3, 4]).threshold_at(1.0) == 0.7  # 0.8 is the one it may have
    assert held.of_folds([3]).threshold_at(1.0) == 0.6  # a fifth of one is none
    assert held.of_folds([1, 2, 3, 4]).of_folds([1, 2]).all_hours == pytest.approx(1.0)


def test_every_fold_is_counted_at_the_threshold_of_the_others():
    """Fold 0 has the scores 0.9 and 0.4 and the alarm 0.3, fold 1 0.8 and 0.6 and the alarm 0.5."""
    background = alarms(0.3, 0.5, folds=[0, 1])
    held = held_out([0.9, 0.8, 0.4, 0.6], background, rehearsal=alarms(0.7, folds=[1], hours=(0.1, 0.2)))
    asked = []

    def choose(others):
        asked.append(others.scores.tolist())
        return float(others.background.scores.max())

    result = cross_fitted(held, 2, choose)
    assert asked == [[0.8, 0.6], [0.9, 0.4]]
    assert (result.recall.found, result.recall.total) == (3, 4)  # 0.9 above 0.5; 0.8 and 0.6 above 0.3
    assert (result.background.count, result.background.hours) == (1, 1.0)
    assert (result.rehearsal.count, result.rehearsal.hours) == (1, pytest.approx(0.3))


def test_the_new_class_is_decoded_like_the_median_of_the_old_ones():
    decoding = {"method": "boxes", "exits": {"2": {"classes": {
        "0": {"edge_level": 0.2}, "1": {"edge_level": 0.25}, "2": {"edge_level": 0.4}}}}}  # fmt: skip
    assert new_class_parameters(decoding, 2, 3)["edge_level"] == 0.25
    parameters = new_class_parameters(None, 1, 3)
    assert parameters["edge_level"] == 0.3 and "threshold" not in parameters
