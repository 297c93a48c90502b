"""What becomes of a calibration when a class joins: old entries stay, the new one is fitted, tables add up."""

from types import SimpleNamespace

import numpy as np
import pytest
import rare_event_calibration
from candidates import Candidates
from event_truth import Truth
from rare_event_calibration import (
    OwnMap,
    calibrate_new_label,
    laid_over,
    with_neutral_class,
    with_new_class,
)
from rare_event_evidence import HeldOutScene, NewCandidates, parse_setting
from test_calibration import make_familiarity, make_map, make_saved
from test_evidence import make_evidence

from modeling_easysed.calibration_easysed import Calibration
from modeling_easysed.decisions_easysed import Table
from modeling_easysed.decoding_easysed import Box

RIGHT, WRONG = Truth(True, 1.0, 2.0), Truth(False, np.nan, np.nan)


def old_table(num: int = 4) -> Table:
    """Every recording of 10 s has one right candidate of class 0 and one event."""
    ones = np.ones(num)
    return Table(0.9 * ones, np.zeros(num, int), ones > 0, np.arange(num), ones < 0, num, 10.0 * num, ones.astype(int))


def scenes(*kinds: str) -> list[HeldOutScene]:
    """ "e" = with an event, "b" = background; folds in turn."""
    return [
        HeldOutScene(
            np.zeros(10), [[1.0, 2.0, "beep"]] if kind == "e" else [], number % 2, number if kind == "e" else -1
        )
        for number, kind in enumerate(kinds)
    ]


def candidates(*rows: tuple[int, float, bool]) -> NewCandidates:
    """(scene, score, right or not)."""
    evidence = [make_evidence(box=Box(1.0, 2.0, 2, score)) for _, score, _ in rows]
    truths = [RIGHT if right else WRONG for *_, right in rows]
    return NewCandidates(evidence, truths, np.array([row[0] for row in rows], dtype=np.int64))


# ---- the map ---------------------------------------------------------------------------------------------------------


def test_the_own_map_is_the_minimum_of_its_loss():
    """Against a grid search over the two numbers that may move: intercept and slope of the score."""
    rng = np.random.default_rng(0)
    features = np.concatenate([np.ones((60, 1)), rng.normal(size=(60, 4))], axis=1)
    right = rng.random(60) < 1 / (1 + np.exp(-(2 + 3 * features[:, 1])))
    pooled = np.array([0.1, 1.0, 0.2, 5.0, -0.3])
    fitted = OwnMap(features, right, pooled, np.zeros((5, 5)))
    rest = features @ np.array([0.1, 1.0, 0.2, 0.0, -0.3])
    steps = np.linspace(-2, 2, 401)
    logits = rest[:, None, None] + steps[:, None] + steps[None, :] * features[:, 1, None, None]
    loss = (np.logaddexp(0, logits) - right[:, None, None] * logits).sum(0)
    loss += 15 * steps[:, None] ** 2 + 50 * steps[None, :] ** 2  # half the precisions 30 and 100
    best = np.unravel_index(loss.argmin(), loss.shape)
    assert fitted.coefficients[:2] == pytest.approx(pooled[:2] + steps[list(best)], abs=0.006)
    assert fitted.coefficients[3] == 0.0 and fitted.coefficients[[2, 4]].tolist() == [0.2, -0.3]
    assert fitted.coefficients[0] > 0.2, "a class that is right more often than the others is believed more"


def test_without_candidates_the_class_has_the_map_of_all_classes():
    fitted = OwnMap(np.zeros((0, 5)), np.zeros(0, bool), np.arange(5.0), np.eye(5))
    assert fitted.coefficients.tolist() == [0, 1, 2, 0, 4]
    assert np.diag(fitted.covariance) == pytest.approx([1 + 1 / 30, 1 + 1 / 100, 1, 0, 1])


def test_what_all_classes_are_unsure_of_this_class_is_too():
    features = np.array([[1.0, 2.0, 0.0, 0.0, 0.0]])
    sure, unsure = (
        OwnMap(np.zeros((0, 5)), np.zeros(0, bool), np.array([0, 1.0, 0, 0, 0]), scale * np.eye(5)) for scale in (0, 4)
    )
    assert 0.5 < unsure.confidence(features)[0] < sure.confidence(features)[0]


# ---- one setting -----------------------------------------------------------------------------------------------------


def fitted_setting() -> dict:
    return make_saved()["exits"]["1"]["settings"]["mc+shifts"] | {"table": old_table().save()}


def test_scenes_are_laid_over_the_calibration_recordings():
    """Eight scenes over four recordings: two each. The old candidates and the old maps stay as they are."""
    before = fitted_setting()
    found = candidates((0, 0.9, True), (1, 0.3, False), (7, 0.8, False))
    after = with_new_class(before, found, scenes(*"ebebebbb"), "beep", 2)
    table, old = Table.load(after["table"]), Table.load(before["table"])
    assert table.recording.tolist() == [0, 1, 2, 3, 0, 0, 3] and table.label.tolist() == [0, 0, 0, 0, 2, 2, 2]
    assert table.right.tolist() == [True] * 5 + [False, False]
    assert table.confidence[:4].tolist() == old.confidence.tolist()
    assert table.num_events.tolist() == [2, 2, 2, 1]
    assert (table.num_recordings, table.duration_s) == (4, 40.0)
    assert {name: after["classes"][name] for name in before["classes"]} == before["classes"]
    assert "beep" not in before["classes"], "what the base holds is not touched"


def test_few_right_events_make_an_uncalibrated_class():
    found = candidates(*[(number, 0.9, True) for number in range(9)])
    entry = with_new_class(fitted_setting(), found, scenes(*"e" * 9), "beep", 2)["classes"]["beep"]
    assert entry["uncalibrated"] and entry["num_events"] == 9
    found = candidates(*[(number, 0.9, True) for number in range(10)])
    assert (
        "uncalibrated" not in with_new_class(fitted_setting(), found, scenes(*"e" * 10), "beep", 2)["classes"]["beep"]
    )


def test_no_candidates_at_all():
    entry = with_new_class(fitted_setting(), candidates(), scenes(*"eb"), "beep", 2)["classes"]["beep"]
    assert entry["num_events"] == 0 and entry["uncalibrated"]


def test_confidences_of_the_table_come_from_maps_that_did_not_hear_the_fold():
    """Fold 0 is always right, fold 1 never: each fold is judged by what the other one taught."""
    rows = [(number, 0.9, number % 2 == 0) for number in range(40)]
    table = Table.load(with_new_class(fitted_setting(), candidates(*rows), scenes(*"e" * 40), "beep", 2)["table"])
    own = table.label == 2
    assert table.confidence[own & table.right].max() < table.confidence[own & ~table.right].min()


def test_a_neutral_class_is_never_unfamiliar():
    rng = np.random.default_rng(0)
    heard = rng.normal(size=(2000, 2)) * 3
    before = make_familiarity(median=1.0, spread=2.0)
    after = with_neutral_class(before, heard)
    classes = np.full(2000, 2)
    assert np.quantile(after.measure(heard, classes), 0.999) == pytest.approx(-3.0)
    np.testing.assert_array_equal(after.measure(heard, classes * 0 + 1), before.measure(heard, classes * 0 + 1))


def test_the_extended_calibration_judges_the_new_class():
    saved = make_saved()
    setting = with_new_class(fitted_setting(), candidates((0, 0.9, True)), scenes(*"eb"), "beep", 2)
    exits = {"1": {**saved["exits"]["1"], "settings": {"mc+shifts": setting}}}
    exits["1"]["familiarity"] = with_neutral_class(make_familiarity(), np.ones((5, 2))).save()
    labels = [*saved["labels"], "beep"]
    calibration = Calibration({**saved, "labels": labels, "exits": exits}, labels)
    far = make_evidence(box=Box(1.0, 2.0, 2, 0.9), embedding=np.array([1.0, 1.0]))
    (judged,) = calibration.judge([far], "mc+shifts", 10.0)
    assert 0 < judged.confidence_low <= judged.confidence <= judged.confidence_high < 1
    assert not judged.is_unfamiliar and not judged.is_calibrated


# ---- everything anew -------------------------------------------------------------------------------------------------


def test_candidates_of_scenes_join_those_of_recordings():
    old = Candidates(
        [make_evidence()], [RIGHT], np.array([1]), ["a", "b"], np.array([10.0, 10.0]), np.array([0, 1]), [None, None]
    )
    merged = laid_over(old, candidates((0, 0.9, True), (3, 0.5, False)), scenes(*"ebee"))
    assert merged.recording.tolist() == [1, 0, 1] and merged.right.tolist() == [True, True, False]
    assert merged.num_events.tolist() == [1, 3] and merged.files == ["a", "b"]
    assert merged.label.tolist() == [0, 2, 2]


def test_settings_are_read_from_their_keys():
    assert parse_setting(3, "mc+shifts") == (3, "mc", 2) and parse_setting(1, "none") == (1, "none", 0)


# ---- which of the ways -----------------------------------------------------------------------------------------------


def ask(monkeypatch, phase: int, has_calibration: bool, num_files: int | None):
    for name in ("extended", "refitted"):
        monkeypatch.setattr(rare_event_calibration, name, lambda *_, name=name: (name, {}))
    model = SimpleNamespace(config=SimpleNamespace(decoding=None))
    base = SimpleNamespace(config=SimpleNamespace(calibration=make_map() if has_calibration else None))
    split = None
    if num_files is not None:
        split = SimpleNamespace(paths=dict.fromkeys(range(num_files)), name="field", split="dev")
    choice = SimpleNamespace(number=phase, phase=SimpleNamespace(fold_models=[model], model=model))
    return calibrate_new_label(SimpleNamespace(base=base), None, choice, split, None)


@pytest.mark.parametrize(
    "phase, has_calibration, num_files, way",
    [(1, True, None, "extended"), (1, True, 30, "extended"), (1, False, 30, "refitted"), (2, True, 30, "refitted")],
)
def test_the_way_follows_from_what_is_known(monkeypatch, phase, has_calibration, num_files, way):
    assert ask(monkeypatch, phase, has_calibration, num_files)[0] == way


@pytest.mark.parametrize(
    "phase, has_calibration, num_files, why",
    [
        (1, False, None, "the base has no calibration"),
        (2, True, None, "all weights changed, so the base's calibration is not this model's"),
        (2, True, 19, "field/dev holds 19 recordings, 20 are needed"),
    ],
)
def test_no_stale_calibration_is_left(monkeypatch, phase, has_calibration, num_files, why):
    calibration, figures = ask(monkeypatch, phase, has_calibration, num_files)
    assert calibration is None and figures["kind"] == "none" and why in figures["sentence"]
