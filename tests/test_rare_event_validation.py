"""Cross-validation of both phases: no model is tested on a fold that it heard."""

import copy

import new_label
import numpy as np
import pytest
import rare_event_scenes
import torch
from accelerate import Accelerator
from new_label import NewRows, set_new_rows, with_new_label
from rare_event_scenes import Featurizer, SceneMixer, make_scenes
from rare_event_validation import Learning, Tuned, new_class_probabilities
from test_rare_event_scenes import make_data
from tiny import tiny_model
from tiny_rare_event import RATE

from modeling_easysed import EasySEDFeatureExtractor


@pytest.fixture(scope="module")
def learning():
    with pytest.MonkeyPatch.context() as patch:
        for name, num in (("POSITIVE_SCENES", 10), ("NEGATIVE_SCENES", 5), ("TEST_SCENES", 10), ("NOISES", 1),
                          ("VARIANTS", 2), ("SYNTHETIC", 6)):  # fmt: skip
            patch.setattr(rare_event_scenes, f"NUM_{name}", num)
        patch.setattr(rare_event_scenes, "NOISE_LEVELS_DB", (-40.0,))
        patch.setattr(new_label, "ROW_STEPS", 10)
        base, data = tiny_model(), make_data()
        featurizer = Featurizer(EasySEDFeatureExtractor(feature_size=32), base.config, 0)
        scenes = make_scenes(SceneMixer(data, RATE, 0), featurizer)
        made = Learning(base, with_new_label(base, "beep", 0), data, scenes, seed=0)
        made.phase = made.phase_one()
        yield made


def test_a_fit_hears_nothing_of_the_folds_that_it_leaves_out(learning):
    folds = np.concatenate([learning.sets[name].folds for name in ("learn", "background")])
    assert learning.held == [[], [0], [1], [2], [3], [4], [0, 1], [2, 3], [4]]
    for held in learning.held:
        weights = learning._weights(held, learning._groups_without(held))
        is_held = np.isin(folds, held)
        assert not weights[is_held].any() and weights[~is_held].all()


def test_groups_of_a_fold_are_left_out(learning):
    assert learning._groups_without([]) == [0, 1, 2, 3, 4] and learning._groups_without([1, 3]) == [0, 2, 4]


def test_every_scene_is_judged_by_the_fit_of_its_fold(learning):
    """Rows whose bias is the number of the fold: the probabilities tell which one spoke."""
    size = learning.frozen["test"].embeddings.shape[-1]
    rows = NewRows(torch.zeros(5, size), torch.arange(5.0))
    found = learning._of_own_fold("test", 0, rows, [[fold] for fold in range(5)])
    expected = torch.sigmoid(torch.from_numpy(learning.sets["test"].folds).float()).numpy()
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-6)


def test_phase_one_has_a_model_per_fold_that_differs_in_the_new_row_alone(learning):
    phase = learning.phase
    assert len(phase.fold_models) == 5 and len(phase.held_out) == 3
    for model in phase.fold_models:
        for name, value in phase.model.state_dict().items():
            other = model.state_dict()[name]
            is_row = ".classifier." in name
            assert torch.equal(value[:-1] if is_row else value, other[:-1] if is_row else other)
            assert not is_row or not torch.equal(value[-1], other[-1])
    held = phase.held_out[0]
    assert len(held.scores) == 10 and held.folds.tolist() == learning.sets["test"].folds.tolist()
    assert held.background.hours.sum() == pytest.approx(100 / 3600)


def test_cached_embeddings_say_what_the_network_says(learning):
    """The model of fold 0 on its scenes, once through the network, once through its rows."""
    own = np.flatnonzero(learning.sets["test"].folds == 0)
    network = new_class_probabilities(learning.phase.fold_models[0], learning.sets["test"].features[own])
    cached = learning.rows[2].probabilities(learning.frozen["test"].embeddings[2][own])[..., 1]
    np.testing.assert_allclose(network[2], cached.numpy(), atol=2e-3)


def test_the_curve_has_a_quarter_half_and_all(learning, monkeypatch):
    monkeypatch.setattr(new_label, "ROW_STEPS", 5)
    curve = learning.curve()
    assert curve.sizes == [1, 2, 4] and len(curve.recall) == 3
    assert all(0 <= recall <= 1 for recall in curve.recall)
    assert curve == learning.curve()


def test_phase_two_blends_and_keeps_folds_apart(learning):
    """Groups of folds 0 and 1, 2 and 3, and 4, whose tuned models say 0.27, 0.5 and 0.73 from 0.5 on."""

    def saying(bias: float):
        model = with_new_label(tiny_model(), "beep", seed=0)
        set_new_rows(model, torch.zeros(3, 8), torch.full((3,), bias))
        return model

    start = saying(0.0)
    tuned = Tuned((start, saying(4.0)), [(start, saying(bias)) for bias in (-2.0, 0.0, 2.0)])
    phase = learning.phase_two(tuned, 0.5)
    biases = [model.exits[0].classifier.bias[-1].item() for model in phase.fold_models]
    assert biases == [-1.0, -1.0, 0.0, 0.0, 1.0]
    assert phase.model.exits[2].classifier.bias[-1].item() == 2.0
    network = learning._network("test", phase.fold_models)
    expected = torch.sigmoid(torch.tensor([biases[fold] for fold in learning.sets["test"].folds]))
    np.testing.assert_allclose(network[1, :, 0], expected.numpy(), atol=1e-6)


def test_tuning_leaves_every_group_out_once(learning, monkeypatch):
    asked, seeds = [], []

    def fake(model, data, is_held, accelerator, seed, steps, name):
        asked.append(
            [sorted(set(scenes.folds[held].tolist())) for scenes, held in zip(data.scenes, is_held, strict=True)]
        )
        seeds.append(seed)
        tuned = copy.deepcopy(model)
        set_new_rows(tuned, torch.zeros(3, 8), torch.full((3,), float(len(asked))))
        return tuned

    monkeypatch.setattr("rare_event_validation.fine_tune", fake)
    tuned = learning.tune(Accelerator(cpu=True), 1)
    assert asked == [[[0, 1]] * 2, [[2, 3]] * 2, [[4]] * 2] and len(set(seeds)) == 3
    assert len(tuned.groups) == 3
    start, mean = tuned.final
    assert torch.equal(start.exits[0].classifier.weight, learning._with_rows(0).exits[0].classifier.weight)
    assert [head.classifier.bias[-1].item() for head in mean.exits] == [2.0] * 3  # of 1, 2 and 3
