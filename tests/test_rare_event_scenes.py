"""Scenes: folds share nothing, labels lie on the sound, noise has the level that it was asked for."""

import numpy as np
import pytest
from rare_event_data import Positive, RareEventData
from rare_event_scenes import (
    Featurizer,
    SceneMixer,
    make_scenes,
    noise_scenes,
    place,
    recordings_in_turn,
)
from tiny import tiny_config
from tiny_rare_event import RATE, noise, tone

from modeling_easysed import EasySEDFeatureExtractor


def make_data(num: int = 5, **changes) -> RareEventData:
    """Clip n is a tone; the background of fold f is a constant of its own below the noise."""
    positives = [Positive(tone(2000, n), [(0.25, 0.75)], f"{n}.wav", f"walk{n}") for n in range(num)]
    background = [(noise(n, 10.0) + 0.1 * (n % 5)).astype(np.float16) for n in range(10)]
    fields = {
        "rehearsal": [],
        "rehearsal_folds": np.zeros(0, np.int64),
        "positive_folds": np.arange(num) % 5,
        "background_folds": np.arange(10) % 5,
    }
    return RareEventData("beep", positives, background=background, num_folds=5, **{**fields, **changes})


@pytest.fixture(scope="module")
def mixer():
    return SceneMixer(make_data(), RATE, seed=0)


def test_scenes_reproduce_and_differ(mixer):
    again = SceneMixer(make_data(), RATE, seed=0)
    for kind in ("positive", "test"):
        first, second = getattr(mixer, kind)(3, 1), getattr(again, kind)(3, 1)
        np.testing.assert_array_equal(first.samples, second.samples)
        assert first.events == second.events
        assert not np.array_equal(first.samples, getattr(mixer, kind)(4, 1).samples)


def test_a_scene_has_the_background_of_its_clips_fold(mixer):
    """The constant below the noise tells which background it was."""
    for clip in range(5):
        scene = mixer.test(0, clip)
        onset, offset = scene.events[0]
        outside = np.concatenate([scene.samples[: int(onset * RATE)], scene.samples[int(offset * RATE) :]])
        shrunk = outside.std() / 0.02  # scenes too loud for full scale are scaled down
        assert np.median(outside) == pytest.approx(0.1 * clip * shrunk, abs=0.01)


def test_the_event_is_where_the_label_says(mixer):
    for number in range(8):
        scene = mixer.test(number, 0)
        ((onset, offset),) = scene.events
        assert offset - onset == pytest.approx(0.5, abs=0.05)
        inside = scene.samples[int(onset * RATE) : int(offset * RATE)]
        power = np.abs(np.fft.rfft(inside)) ** 2
        frequency = np.fft.rfftfreq(len(inside), 1 / RATE)
        assert frequency[power.argmax()] == pytest.approx(2000, abs=20)


def test_events_of_a_scene_do_not_meet(mixer):
    for number in range(20):
        events = mixer.positive(number, 2).events
        assert events and all(first[1] <= second[0] for first, second in zip(events, events[1:], strict=False))


def test_a_place_that_is_taken():
    samples, rng = np.zeros(RATE), np.random.default_rng(0)
    assert place(samples, np.ones(RATE), 0.1, RATE, rng, [(0.2, 0.3)]) is None
    assert not samples.any()
    assert place(samples, np.ones(2 * RATE), 0.1, RATE, rng, []) == (0.0, 1.0)


def test_a_sound_that_lasts_is_cut():
    data = make_data()
    data.positives[0] = Positive(noise(1, 12.0) + tone(500, 1, 12.0), [(0.0, 12.0)], "0.wav", "walk0")
    scene = SceneMixer(data, RATE, seed=0).test(0, 0)
    onset, offset = scene.events[0]
    assert 2.0 <= offset - onset <= 5.0


def test_every_recording_has_as_many_scenes_and_its_clips_take_turns():
    assert recordings_in_turn(np.array([0, 1, 1, 2]), 7) == [0, 1, 3, 0, 2, 3, 0, 1, 3]


def test_noise_has_its_level():
    mixtures, folds, _ = noise_scenes(RATE, seed=0)
    levels = [20 * np.log10(one.samples.std()) for one in mixtures]
    assert len(mixtures) == 120 and (folds == -1).all()
    assert min(levels) == pytest.approx(-75, abs=0.1) and max(levels) == pytest.approx(-25, abs=0.1)


def test_sets_know_their_folds_and_recordings(monkeypatch):
    import rare_event_scenes

    for name, num in (("NUM_POSITIVE_SCENES", 10), ("NUM_NEGATIVE_SCENES", 5), ("NUM_TEST_SCENES", 10)):
        monkeypatch.setattr(rare_event_scenes, name, num)
    monkeypatch.setattr(rare_event_scenes, "noise_scenes", lambda rate, seed: (
        [rare_event_scenes.Mixture(noise(0, 10.0), [])], np.array([-1]), np.array([-1])))  # fmt: skip
    data = make_data()
    scenes = make_scenes(
        SceneMixer(data, RATE, 0), Featurizer(EasySEDFeatureExtractor(feature_size=32), tiny_config(), 0)
    )
    assert scenes.learn.groups.tolist() == [0, 1, 2, 3, 4] * 2 + [-1] * 5
    assert scenes.learn.folds.tolist() == [0, 1, 2, 3, 4] * 3
    assert scenes.test.groups.tolist() == scenes.tested == [0, 1, 2, 3, 4] * 2
    assert scenes.rehearsal is None and len(scenes.background) == 10
    num_frames = scenes.test.targets.shape[1]
    assert scenes.test.features.shape == (10, 1001, 32) and num_frames == 251
    for events, targets in zip(scenes.test.events, scenes.test.targets, strict=True):
        assert targets.sum().item() * 0.04 == pytest.approx(events[0][1] - events[0][0], abs=0.03)
