"""Reasons: every sentence has an event that deserves it and one that does not."""

import numpy as np
import pytest
from test_evidence import make_evidence

from modeling_easysed.calibration_easysed import Judgement
from modeling_easysed.decisions_easysed import NEVER
from modeling_easysed.decoding_easysed import Box
from modeling_easysed.input_easysed import input_warnings, measure_input
from modeling_easysed.reasons_easysed import LIMITS, fit_limits, reasons_for

FITTED = {"disagreement": 0.5, "shift": 0.5, "exits": 0.5, "contrast": 10.0, "overlap": 0.6}


def make_judgement(
    is_unfamiliar: bool = False, is_calibrated: bool = True, seems_unfamiliar: bool = False
) -> Judgement:
    return Judgement(0.42, 0.3, 0.6, 0.9, 1.1, 1.9, 2.1, 0.0, is_unfamiliar, seems_unfamiliar, is_calibrated)


def reasons(
    evidence=None, judgement=None, decision="accept", limits=FITTED, warnings=(), duration=10.0, needed=0.8
) -> list[str]:
    evidence = make_evidence() if evidence is None else evidence
    judgement = make_judgement() if judgement is None else judgement
    return reasons_for(evidence, judgement, decision, limits, list(warnings), duration, needed)


def test_an_event_without_doubt_needs_no_reason():
    assert reasons() == []


@pytest.mark.parametrize(
    ("attribute", "doubtful", "fine", "sentence"),
    [
        ("sample_spread", 0.51, 0.5, "model disagreement: "),
        ("shift_spread", 0.51, 0.5, "unstable under time shift: "),
        ("exit_spread", 0.51, 0.5, "exits disagree: "),
        ("contrast_db", 9.9, 10.0, "noisy: "),
        ("overlap", 0.61, 0.6, "overlapping sound: "),
    ],
)
def test_a_measurement_beyond_its_limit_is_a_reason(attribute, doubtful, fine, sentence):
    (found,) = reasons(make_evidence(**{attribute: doubtful}))
    assert found.startswith(sentence)
    assert reasons(make_evidence(**{attribute: fine})) == []


def test_no_spread_is_no_disagreement():
    """As in the plain pass, where limits of 0 were fitted to spreads of 0 and float errors remain."""
    limits = {**FITTED, "disagreement": 0.0, "shift": 0.0, "exits": 0.0}
    none = {"sample_spread": 1e-12, "shift_spread": 0.0, "exit_spread": 0.0}
    assert reasons(make_evidence(**none), limits=limits) == []
    assert len(reasons(make_evidence(**{**none, "sample_spread": 1e-3}), limits=limits)) == 1


def test_unfamiliar_sounds_come_first():
    found = reasons(make_evidence(sample_spread=1.0), make_judgement(is_unfamiliar=True), "review")
    assert [one.split(":")[0] for one in found] == ["unfamiliar sound", "model disagreement"]


@pytest.mark.parametrize(
    ("onset", "offset", "is_cut"),
    [(0.0, 1.0, True), (9.0, 10.0, True), (0.01, 9.99, False)],
)
def test_events_at_the_recordings_ends_are_cut_off(onset, offset, is_cut):
    found = reasons(make_evidence(box=Box(onset, offset, 0, 0.9)))
    assert found == (["cut off: it touches the start or end of the recording"] if is_cut else [])


def test_faults_of_the_recording_are_passed_on():
    clipped, other = "clipped: 3 % of the samples lie flat", "mixed: 2 channels were averaged"
    assert reasons(warnings=[clipped, other]) == [clipped]
    assert reasons(warnings=[other]) == []


def test_a_noisy_recording_is_a_reason():
    noise = 0.1 * np.random.default_rng(0).standard_normal(5 * 16000).astype(np.float32)
    (warning,) = input_warnings(measure_input(noise, 16000))
    assert warning.startswith("noisy: steady white noise")
    assert reasons(warnings=[warning]) == [warning]
    # the event's own noise is another matter: both are said
    found = reasons(make_evidence(contrast_db=0.0), warnings=[warning])
    assert found == ["noisy: it hardly rises above the background", warning]


def test_a_class_with_too_few_events_says_so():
    (found,) = reasons(judgement=make_judgement(is_calibrated=False))
    assert found.startswith("uncalibrated class: ")


@pytest.mark.parametrize("decision", ["review", "reject"])
def test_without_any_other_reason_the_evidence_is_weak(decision):
    assert reasons(decision=decision) == ["weak evidence: confidence 0.42, 0.80 is needed to be accepted"]
    assert not any("weak" in one for one in reasons(make_evidence(overlap=0.9), decision=decision))


def test_the_two_numbers_of_weak_evidence_are_told_apart():
    sentence = "weak evidence: confidence 0.42, 0.80 is needed to be accepted"
    for needed, confidence, wanted in ((0.4241, "0.420", "0.424"), (0.42003, "0.42000", "0.42003")):
        expected = sentence.replace("0.42", confidence, 1).replace("0.80", wanted)
        assert reasons(decision="review", needed=needed) == [expected]


@pytest.mark.parametrize("decision", ["review", "reject"])
def test_a_class_that_is_never_accepted_says_so_without_a_number(decision):
    expected = ["weak evidence: confidence 0.42, its class is accepted at no confidence"]
    assert reasons(decision=decision, needed=NEVER) == expected
    assert "1.00 is needed" in reasons(decision=decision, needed=1.0)[0]


def test_limits_are_what_one_in_twenty_right_events_passes():
    events = [
        make_evidence(
            sample_spread=k / 100, shift_spread=k / 50, exit_spread=k / 10, contrast_db=float(k), overlap=k / 100
        )
        for k in range(101)
    ]
    limits = fit_limits(events)
    assert set(limits) == set(LIMITS)
    expected = {"disagreement": 0.95, "shift": 1.9, "exits": 9.5, "contrast": 5.0, "overlap": 0.95}
    assert limits == pytest.approx(expected)
    for name in ("model disagreement", "noisy"):
        share = np.mean([any(one.startswith(name) for one in reasons(event, limits=limits)) for event in events])
        assert share == pytest.approx(5 / 101)


def test_overlap_below_one_half_is_none():
    assert fit_limits([make_evidence(overlap=0.05)] * 20)["overlap"] == 0.5


@pytest.mark.parametrize(("decision", "is_said"), [("accept", False), ("review", True), ("reject", True)])
def test_what_only_seems_unfamiliar_is_said_of_events_that_are_not_accepted(decision, is_said):
    found = reasons(make_evidence(), make_judgement(seems_unfamiliar=True), decision)
    assert any(reason.startswith("unfamiliar sound:") for reason in found) == is_said
