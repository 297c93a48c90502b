"""Decisions: goals, thresholds on tables small enough to check by hand, and whether the guarantees hold."""

import json
import math
import re

import numpy as np
import pytest

from modeling_easysed.decisions_easysed import (
    DEFAULT_GOAL,
    NEVER,
    REVIEW_CONFIDENCE,
    Goal,
    Rule,
    Table,
    betting_p_value,
    class_thresholds,
    false_alarm_threshold,
    make_rule,
    precision_threshold,
    recall_threshold,
)

LABELS = ["dog_bark", "rain"]


def make_table(rows: list[tuple], num_recordings: int, num_events=None, seconds: float = 10.0, **columns) -> Table:
    """From rows (confidence, right, recording); class 0 and familiar unless given."""
    confidence, right, recording = (np.array(column) for column in zip(*rows, strict=True))
    events = np.bincount(recording, right, minlength=num_recordings) if num_events is None else np.array(num_events)
    values = {"label": np.zeros(len(rows), int), "unfamiliar": np.zeros(len(rows), bool), **columns}
    return Table(
        confidence=confidence.astype(float),
        right=right.astype(bool),
        recording=recording,
        num_recordings=num_recordings,
        duration_s=seconds * num_recordings,
        num_events=events.astype(int),
        **{name: np.array(value) for name, value in values.items()},
    )


def sure_table(num_recordings: int, num_wrong: int = 0) -> Table:
    """One right event of confidence 0.95 in every recording; wrong ones of confidence 0.45 in the first."""
    rows = [(0.95, True, number) for number in range(num_recordings)]
    return make_table(rows + [(0.45, False, number) for number in range(num_wrong)], num_recordings)


# ---- goals and decisions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["min_precision", "min_recall"])
@pytest.mark.parametrize("value", [0, 1, 1.2, -0.5, True, "0.9", math.nan])
def test_shares_lie_between_0_and_1(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be in \(0, 1\), got {value!r}"):
        Goal(**{name: value})


@pytest.mark.parametrize("value", [0, -1, True, "1", math.inf, math.nan])
def test_false_alarms_are_a_positive_number(value):
    with pytest.raises(ValueError, match=f"max_false_alarms_per_hour must be a number > 0, got {value!r}"):
        Goal(max_false_alarms_per_hour=value)


def test_legal_goals():
    assert Goal().is_default and Goal() == DEFAULT_GOAL
    assert not Goal(min_precision=0.9).is_default
    assert not Goal(max_false_alarms_per_hour=1).is_default
    assert Goal(0.9, 0.8, 2.0) == Goal(min_precision=0.9, min_recall=0.8, max_false_alarms_per_hour=2.0)


@pytest.mark.parametrize(
    ("confidence", "class_index", "is_unfamiliar", "decision"),
    [
        (0.8, 0, False, "accept"),  # at least, not above
        (0.79, 0, False, "review"),
        (0.8, 1, False, "review"),  # this class needs 0.9
        (0.9, 1, False, "accept"),
        (0.99, 0, True, "review"),  # never accepted
        (0.3, 0, False, "review"),
        (0.29, 0, False, "reject"),
        (0.29, 0, True, "reject"),
    ],
)
def test_accept_review_or_reject(confidence, class_index, is_unfamiliar, decision):
    rule = Rule(accept=np.array([0.8, 0.9]), review=0.3)
    assert rule.decide(confidence, class_index, is_unfamiliar) == decision


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_a_table_survives_config_json():
    rows = [(0.1234, True, 0), (0.99, False, 2), (0.5, True, 2)]
    columns = {"label": [0, 1, 9], "unfamiliar": [True, False, False]}
    table = make_table(rows, 4, [1, 0, 5, 0], seconds=2.5, **columns)
    loaded = Table.load(json.loads(json.dumps(table.save())))
    assert loaded.confidence == pytest.approx([0.1234, 0.99, 0.5])
    assert loaded.label.tolist() == [0, 1, 9] and loaded.recording.tolist() == [0, 2, 2]
    assert loaded.right.tolist() == [True, False, True] and loaded.unfamiliar.tolist() == [True, False, False]
    assert (loaded.num_recordings, loaded.duration_s) == (4, 10.0)
    assert loaded.num_events.tolist() == [1, 0, 5, 0]


def test_an_empty_table_survives_too():
    none = np.zeros(0)
    table = Table(none, none.astype(int), none > 0, none.astype(int), none > 0, 2, 20.0, np.array([1, 0]))
    loaded = Table.load(table.save())
    assert len(loaded.confidence) == 0 and loaded.num_events.tolist() == [1, 0]


def test_a_long_recording_may_hold_many_events():
    table = make_table([(0.9, True, 0)], 2, [300, 1])
    assert Table.load(table.save()).num_events.tolist() == [300, 1]


def test_sums_per_recording_and_what_is_accepted():
    table = make_table([(0.9, True, 1), (0.8, False, 1), (0.95, True, 0)], 3, unfamiliar=[False, False, True])
    assert table.per_recording(np.array([1.0, 2.0, 4.0])).tolist() == [4.0, 3.0, 0.0]
    assert table.accepted(0.9).tolist() == [True, False, False]
    assert table.accepted(np.array([0.95, 0.8, 0.1])).tolist() == [False, True, False]


# ---- one goal on a table checked by hand -----------------------------------------------------------------------------


def test_precision_goes_down_to_where_it_still_holds():
    threshold, sentence, warnings = precision_threshold(sure_table(200, num_wrong=200), 0.9)
    assert threshold == 0.46  # at 0.45 half of the accepted are wrong
    assert "right in at least 90 % of the cases" in sentence and "confidence >= 0.46" in sentence
    assert "with probability 0.9 for recordings exchangeable with the 200 of the calibration" in sentence
    assert warnings == []


def test_precision_that_cannot_be_supported():
    threshold, sentence, (warning,) = precision_threshold(sure_table(10, num_wrong=10), 0.9)
    assert threshold == 0.46  # held on the calibration recordings
    assert "without guarantee" in sentence
    assert "min_precision=0.9 cannot be guaranteed: needs at least" in warning and "has 10 right ones" in warning
    never, *_ = precision_threshold(make_table([(0.9, False, 0), (0.5, True, 1)], 2), 0.9)
    assert never == NEVER


@pytest.mark.parametrize("num_right", [25, 60])
def test_what_a_precision_needs_is_more_than_there_is(num_right):
    (warning,) = precision_threshold(sure_table(num_right), 0.9)[2]
    assert int(re.search(r"needs at least (\d+) labelled events", warning)[1]) > num_right


def test_unfamiliar_events_do_not_spoil_the_precision():
    rows = [(0.95, True, number) for number in range(200)] + [(0.97, False, number) for number in range(200)]
    table = make_table(rows, 200, unfamiliar=[False] * 200 + [True] * 200)
    threshold, _, warnings = precision_threshold(table, 0.9)
    assert threshold == 0.01 and warnings == []


def test_false_alarms_by_hand():
    # 99 recordings of 36 s; wrong ones at 0.9, 0.8, 0.7 and 0.6, one per recording. The bound is (wrong + 1) / 100
    # per recording, one false alarm per hour is 0.01, two are 0.02
    rows = [(0.9, False, 0), (0.8, False, 1), (0.7, False, 2), (0.6, False, 3), (0.95, True, 4)]
    table = make_table(rows, 99, seconds=36.0)
    assert [false_alarm_threshold(table, rate)[0] for rate in (1.0, 2.0, 3.0)] == [0.91, 0.81, 0.71]
    sentence = false_alarm_threshold(table, 2.0)[1]
    assert "at most 2 false alarms per hour" in sentence and "guaranteed on average" in sentence
    # the bound cannot fall below 1 / 100; without it, 0.5 per hour = 0.005 per recording allow none of 99
    threshold, sentence, (warning,) = false_alarm_threshold(table, 0.5)
    assert threshold == 0.91 and "without guarantee" in sentence
    assert "needs at least 199 labelled recordings without a sure error, has 99" in warning


def test_recall_by_hand():
    # 99 recordings with one event each, found with confidences 0.01, 0.02, ... 0.99: at threshold t, 100 t - 1 are
    # missed, and the bound is 100 t / 100 = t
    table = make_table([((number + 1) / 100, True, number) for number in range(99)], 99)
    threshold, sentence, warnings = recall_threshold(table, 0.75)
    assert threshold == 0.25 and warnings == []
    assert "at least 75 % of the events are reported: confidence >= 0.25" in sentence


def test_recall_that_cannot_be_supported():
    table = make_table([(0.9, True, 0), (0.5, True, 1)], 4, [1, 2, 0, 1])
    threshold, sentence, (warning,) = recall_threshold(table, 0.875)
    assert threshold == 0.01 and "without guarantee" in sentence
    # found: all of one, half of one, none of one, and one without events misses none: 2.5 of 4
    assert "needs at least 7 labelled recordings, has 4, whose events are found to 62 %" in warning


def test_recall_is_free_of_rounding():
    table = make_table([((number + 1) / 100, True, number) for number in range(99)], 99)
    assert recall_threshold(table, 0.9)[0] == 0.1
    (warning,) = recall_threshold(make_table([(0.9, True, 0)], 2, [1, 1]), 0.9)[2]
    assert "needs at least 9 labelled recordings, has 2" in warning


def test_a_class_that_falls_short_needs_more():
    rows = [(0.9, True, 0), (0.6, True, 0), (0.9, True, 0), (0.6, False, 0)]
    table = make_table(rows, 1, label=[0, 0, 1, 1])
    assert class_thresholds(table, 0.9, 0.5, 3).tolist() == [0.5, 0.61, 0.5]
    assert class_thresholds(table, 0.5, 0.5, 3).tolist() == [0.5, 0.5, 0.5]
    assert class_thresholds(table, 0.9, NEVER, 3).tolist() == [NEVER] * 3


def test_a_class_that_is_wrong_at_any_confidence_is_never_accepted():
    table = make_table([(0.995, False, 0), (0.6, True, 0)], 1)
    assert class_thresholds(table, 0.9, 0.5, 1).tolist() == [NEVER]
    # unfamiliar events are not accepted anyway, and a class without candidates has nothing against it
    unfamiliar = make_table([(0.995, False, 0), (0.6, True, 0)], 1, unfamiliar=[True, False])
    assert class_thresholds(unfamiliar, 0.9, 0.5, 2).tolist() == [0.5, 0.5]


# ---- rules -----------------------------------------------------------------------------------------------------------


def test_the_default_goal_is_a_precision():
    table = sure_table(200, num_wrong=200)
    rule = make_rule(DEFAULT_GOAL, table, LABELS, 0.0)
    assert rule.accept.tolist() == [0.46, 0.46] and rule.review == REVIEW_CONFIDENCE and rule.warnings == []
    assert rule.accept.tolist() == make_rule(Goal(min_precision=0.9), table, LABELS, 0.0).accept.tolist()
    assert rule.sentences[-2] == "events are accepted from confidence 0.46 on"
    # 200 events of 0.95 are accepted, 200 of 0.45 are for review
    assert rule.sentences[-1] == "50 % of the reported events of the calibration recordings are accepted"


def test_nothing_below_the_outside_threshold_is_accepted():
    rule = make_rule(DEFAULT_GOAL, sure_table(200, num_wrong=200), LABELS, 0.7)
    assert rule.accept.tolist() == [0.7, 0.7] and rule.review == REVIEW_CONFIDENCE
    why = "(lower ones let sounds of no target class in)"
    assert rule.sentences[-2] == f"events are accepted from confidence 0.70 on {why}"


def test_outside_sounds_are_no_reason_where_the_goal_asks_for_more():
    rule = make_rule(DEFAULT_GOAL, sure_table(200, num_wrong=200), LABELS, 0.4)
    assert rule.accept.tolist() == [0.46, 0.46]
    assert rule.sentences[-2] == "events are accepted from confidence 0.46 on"


def with_a_wrong_class(num_other: int) -> Table:
    """Class 0 is right at 0.95 in 200 recordings, as are `num_other` more; the last is wrong at 0.995 in one."""
    rows = [(0.95, True, number) for number in range(200)] * (1 + num_other) + [(0.995, False, 0)]
    return make_table(rows, 200, label=np.append(np.repeat(np.arange(1 + num_other), 200), 1 + num_other))


def test_a_class_that_is_right_at_no_confidence_is_never_accepted_and_never_a_number():
    rule = make_rule(DEFAULT_GOAL, with_a_wrong_class(1), ["dog_bark", "rain", "rooster"], 0.0)
    # the review confidence is the lowest that is accepted
    assert rule.accept.tolist() == [REVIEW_CONFIDENCE, REVIEW_CONFIDENCE, NEVER]
    assert rule.decide(1.0, 2, False) == "review" and rule.decide(0.3, 1, False) == "accept"
    assert rule.sentences[-2] == "events are accepted from confidence 0.30 on"
    # 400 of the 401 that are reported
    assert rule.sentences[-1] == "100 % of the reported events of the calibration recordings are accepted"
    assert not any("1.01" in one for one in rule.sentences + rule.warnings)


def test_the_sentence_names_a_confidence_from_which_a_class_is_accepted():
    rule = make_rule(DEFAULT_GOAL, with_a_wrong_class(0), LABELS, 0.0)
    assert rule.accept.tolist() == [REVIEW_CONFIDENCE, NEVER]
    assert rule.sentences[-2] == "events are accepted from confidence 0.30 on"


@pytest.mark.parametrize("goal", [DEFAULT_GOAL, Goal(max_false_alarms_per_hour=1.0)])
def test_where_nothing_is_right_the_text_says_so_without_a_number(goal):
    rule = make_rule(goal, make_table([(0.995, False, number) for number in range(30)], 30), LABELS, 0.5)
    assert rule.accept.tolist() == [NEVER, NEVER] and rule.decide(1.0, 0, False) == "review"
    assert "at no confidence, without guarantee" in rule.sentences[0]
    assert rule.sentences[1:] == ["0 % of the reported events of the calibration recordings are accepted"]
    assert len(rule.warnings) == 1 and not any("1.01" in one for one in rule.sentences + rule.warnings)


def test_the_strictest_goal_counts():
    table = sure_table(200, num_wrong=200)
    # 200 x 10 s; 18 per hour are 0.05 per recording, the wrong ones of confidence 0.45 are far more
    goal = Goal(min_precision=0.5, max_false_alarms_per_hour=18.0)
    rule = make_rule(goal, table, LABELS, 0.0)
    assert rule.accept.tolist() == [0.46, 0.46]
    assert any("50 %" in one for one in rule.sentences) and any("18 false alarms" in one for one in rule.sentences)


def test_a_recall_moves_the_border_of_review():
    rows = [((number % 99 + 1) / 100, True, number) for number in range(198)]
    rule = make_rule(Goal(min_recall=0.9), make_table(rows, 198), LABELS, 0.0)
    assert rule.review <= 0.1 and (rule.accept >= rule.review).all()


def test_a_recall_alone_accepts_what_it_reports():
    # one event per recording with confidences 0.01, 0.02, ... 0.99: nine of ten are reported from 0.10 on
    table = make_table([((number + 1) / 100, True, number) for number in range(99)], 99)
    rule = make_rule(Goal(min_recall=0.9), table, LABELS, 0.0)
    assert rule.accept.tolist() == [0.1, 0.1] and rule.review == 0.1
    assert rule.decide(0.09, 0, False) == "reject"
    assert rule.sentences[-2] == "events are accepted from confidence 0.10 on"  # no outside sound was heard


def test_no_more_than_all_of_the_reported_events_are_accepted():
    # 200 events of 0.95 are right, 200 of 0.45 are wrong; a recall of 5 % needs the first alone
    goal = Goal(min_recall=0.05, min_precision=0.4)
    rule = make_rule(goal, sure_table(200, num_wrong=200), LABELS, 0.0)
    assert rule.accept.max() < 0.45 and rule.review <= rule.accept.min()
    assert rule.sentences[-1] == "100 % of the reported events of the calibration recordings are accepted"


def test_review_never_lies_above_accept():
    rule = make_rule(Goal(min_recall=0.05, min_precision=0.5), sure_table(200), LABELS, 0.0)
    assert (rule.accept >= rule.review).all()


@pytest.mark.parametrize(
    ("goal", "number"),
    [(Goal(min_precision=0.99), "has 10 right"), (Goal(min_recall=0.99), "has 10,"), (Goal(None, None, 0.1), "has 10")],
)
def test_a_goal_without_support_is_a_warning_with_numbers(goal, number):
    warning = make_rule(goal, sure_table(10), LABELS, 0.0).warnings[-1]
    assert "needs at least" in warning and number in warning


# ---- do the guarantees hold? -----------------------------------------------------------------------------------------


def at_most(share: float, num: int) -> float:
    """`share` and three standard deviations of its estimate from `num` cases."""
    return share + 3 * math.sqrt(share * (1 - share) / num)


def test_the_p_value_is_valid():
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(500):
        # up to 4 accepted events per recording, right in exactly 80 % of the cases, in clusters
        counts = rng.integers(0, 5, size=150)
        rates = rng.choice([0.6, 1.0], size=150)  # per recording
        right = rng.binomial(counts, rates)
        margins = 0.2 * right - 0.8 * (counts - right)
        small += betting_p_value(margins, 0.8 * counts.max()) <= 0.1
    assert small / 500 <= at_most(0.1, 500)


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.95])
def test_the_p_value_is_valid_near_certainty(precision):
    rng = np.random.default_rng(1)
    small = 0
    for _ in range(500):
        right = rng.random(100) < precision
        small += betting_p_value(np.where(right, 1 - precision, -precision), precision) <= 0.1
    assert small / 500 <= at_most(0.1, 500)


def test_the_p_value_is_small_for_good_margins_and_one_for_bad_ones():
    assert betting_p_value(np.full(300, 0.1), 0.9) < 0.01
    assert betting_p_value(np.full(300, -0.1), 0.9) > 0.5
    assert betting_p_value(np.zeros(300), 0.9) == 1.0
    # the fewer, the weaker: ten right events say nothing of 90 %
    assert betting_p_value(np.full(10, 0.1), 0.9) > 0.1


LEVELS = np.array([0.95, 0.85, 0.7, 0.45, 0.2])  # confidences of the simulated detector
RIGHT = np.array([0.95, 0.83, 0.6, 0.3, 0.1])  # and how often it is right there
SHARES = np.array([0.4, 0.2, 0.15, 0.15, 0.1])


def simulated_recordings(num: int, seed: int) -> Table:
    """Recordings of 10 s with 0 to 4 candidates, some harder than others, and sometimes an event that nothing finds."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, size=num)
    recording = np.repeat(np.arange(num), counts)
    level = rng.choice(len(LEVELS), size=len(recording), p=SHARES)
    harder = np.where(rng.random(num) < 0.5, 0.05, -0.05)[recording]
    right = rng.random(len(recording)) < RIGHT[level] - harder
    rows = list(zip(LEVELS[level], right, recording, strict=True))
    hidden = rng.random(num) < 0.05
    return make_table(rows, num, np.bincount(recording, right, minlength=num) + hidden)


@pytest.fixture(scope="module")
def calibrations() -> list[Table]:
    return [simulated_recordings(250, seed) for seed in range(200)]


@pytest.fixture(scope="module")
def world() -> Table:
    """Enough recordings of the same kind to take their averages for the truth."""
    return simulated_recordings(20_000, 1000)


@pytest.mark.parametrize("precision", [0.8, 0.88])
def test_the_precision_fails_in_one_of_ten_calibrations_at_most(calibrations, world, precision):
    answers = [precision_threshold(table, precision) for table in calibrations]
    guaranteed = [threshold for threshold, _, warnings in answers if not warnings]
    assert len(guaranteed) > 50  # else nothing is tested
    truth = {threshold: world.right[world.accepted(threshold)].mean() for threshold in set(guaranteed)}
    failed = sum(truth[threshold] < precision for threshold in guaranteed)
    assert failed / len(answers) <= at_most(0.1, len(answers))


@pytest.mark.parametrize("per_hour", [30.0, 60.0])
def test_false_alarms_keep_their_mean(calibrations, world, per_hour):
    answers = [false_alarm_threshold(table, per_hour) for table in calibrations]
    assert not any(warnings for *_, warnings in answers)
    hours = world.duration_s / 3600
    rates = [(world.accepted(threshold) & ~world.right).sum() / hours for threshold, *_ in answers]
    assert np.mean(rates) <= per_hour + 3 * np.std(rates) / math.sqrt(len(rates))
    assert np.mean(rates) > 0.3 * per_hour  # nor is everything thrown away


@pytest.mark.parametrize("recall", [0.7, 0.9])
def test_misses_keep_their_mean(calibrations, world, recall):
    answers = [recall_threshold(table, recall) for table in calibrations]
    assert not any(warnings for *_, warnings in answers)
    missed = []
    for threshold, *_ in answers:
        found = np.bincount(world.recording, (world.confidence >= threshold) & world.right, world.num_recordings)
        share = np.ones(world.num_recordings)
        np.divide(found, world.num_events, out=share, where=world.num_events > 0)
        missed.append(1 - share.mean())
    assert np.mean(missed) <= 1 - recall + 3 * np.std(missed) / math.sqrt(len(missed))
    assert np.mean(missed) > 0.2 * (1 - recall)


def test_a_graded_confidence_can_be_guaranteed_as_well():
    """Calibrated confidences from 0.5 to 0.95: those above t are right in (t + 0.95) / 2 of the cases."""
    rng = np.random.default_rng(0)
    recording = np.arange(1000).repeat(2)
    confidence = rng.uniform(0.5, 0.95, size=2000)
    rows = list(zip(confidence, rng.random(2000) < confidence, recording, strict=True))
    threshold, _, warnings = precision_threshold(make_table(rows, 1000), 0.8)
    assert warnings == [] and 0.63 < threshold < 0.8


def test_a_threshold_above_all_that_was_tested_is_not_guaranteed():
    # right events of 0.95 and of 0.9: outside sounds push the threshold to 0.95, where nothing of the second was tested
    free, pushed = (make_rule(DEFAULT_GOAL, table, LABELS, 0.95) for table in (sure_table(200), low_table()))
    assert "guaranteed with probability 0.9" in free.sentences[0] and not free.warnings
    assert "without guarantee" in pushed.sentences[0] and "cannot be guaranteed" in pushed.warnings[0]
    assert pushed.warnings[0].endswith("has 200 right ones of 200, 0 of them from confidence 0.95 on")


def low_table():
    return make_table([(0.9, True, number) for number in range(200)], 200)
