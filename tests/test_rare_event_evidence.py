"""Candidates of a new class on held-out scenes: only that class, by the model of the scene's fold."""

from types import SimpleNamespace

import candidates
import numpy as np
import pytest
import torch
from candidates import all_settings
from new_label import set_new_rows, with_new_label
from rare_event_evidence import (
    HeldOutScene,
    collect_new_candidates,
    first_active_exit,
    held_out_scenes,
    one_thread,
)
from rare_event_scenes import SceneMixer
from test_rare_event_scenes import make_data
from tiny import tiny_model
from tiny_rare_event import RATE, noise

from modeling_easysed import EasySEDFeatureExtractor

EXTRACTOR = EasySEDFeatureExtractor(feature_size=32)


def always(bias: float, exits: int = 3):
    """A model whose new class has the same logit everywhere."""
    model = with_new_label(tiny_model(), "beep", seed=0)
    set_new_rows(model, torch.zeros(exits, 8), torch.full((exits,), bias))
    return model


def scene(fold: int, events=()) -> HeldOutScene:
    return HeldOutScene(noise(fold, 10.0), [list(event) for event in events], fold, fold if events else -1)


@pytest.fixture(autouse=True)
def few_passes(monkeypatch):
    monkeypatch.setattr(candidates, "PASSES", 2)


def test_every_scene_is_heard_by_the_model_of_its_fold():
    """The model of fold 0 says 0.88 throughout, that of fold 1 0.12: one candidate each, of these scores."""
    phase = SimpleNamespace(model=always(2.0), fold_models=[always(2.0), always(-2.0)])
    scenes = [scene(1), scene(0, [(0.0, 9.0, "beep")])]
    found = collect_new_candidates(phase, EXTRACTOR, scenes, [(3, "none", 0), (1, "mc", 2)])
    for own in found.values():
        assert own.scene.tolist() == [0, 1] and own.right.tolist() == [False, True]
        assert [one.box.score for one in own.evidence] == pytest.approx([0.119, 0.881], abs=0.001)
        assert all(one.box.class_index == 3 for one in own.evidence)


def test_where_nothing_is_heard_nothing_is_computed(monkeypatch):
    import rare_event_evidence

    asked = []
    original = rare_event_evidence.sample_setting
    monkeypatch.setattr(rare_event_evidence, "sample_setting", lambda *args: asked.append(args[4]) or original(*args))
    quiet, half = always(-5.0), always(-5.0)
    half.exits[1].classifier.bias.data[-1] = 0.0
    for model, exits in ((quiet, set()), (half, {2, 3})):
        asked.clear()
        phase = SimpleNamespace(model=model, fold_models=[model])
        found = collect_new_candidates(phase, EXTRACTOR, [scene(0)], all_settings(3))
        assert {setting[0] for setting in asked} == exits and len(found) == len(all_settings(3))


def test_the_first_exit_that_hears_it():
    features = EXTRACTOR.frames(noise(0, 1.0))
    assert first_active_exit(always(-5.0), features) == 4
    assert first_active_exit(always(0.0), features) == 1


def test_mixtures_and_background_are_spread_over_all_there_is():
    data = make_data()
    scenes = held_out_scenes(
        data, SceneMixer(data, RATE, seed=0), [0, 1, 2, 3, 4, 0, 1], num_mixtures=6, num_background=5
    )
    assert [one.group for one in scenes] == [0, 1, 2, 3, 4, 0, -1, -1, -1, -1, -1]
    assert [one.fold for one in scenes] == [0, 1, 2, 3, 4, 0, 0, 2, 4, 1, 3]
    assert [len(one.events) for one in scenes] == [1] * 6 + [0] * 5 and scenes[0].events[0][2] == "beep"
    np.testing.assert_array_equal(scenes[7].samples, data.background[2].astype(np.float32))


def test_threads_come_back():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), one_thread():
        assert torch.get_num_threads() == 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
