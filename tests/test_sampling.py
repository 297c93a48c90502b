"""Samples of one window under every method, doubt, and exits that stop early."""

import math

import numpy as np
import pytest
import torch
from tiny import tiny_model

from modeling_easysed.metrics import bernoulli_uncertainty
from modeling_easysed.monte_carlo_easysed import evaluating
from modeling_easysed.sampling_easysed import Sampling, binary_entropy, sample_window, sigmoid, window_doubt

BACKBONES = ["cnn", "transformer"]
LN2 = math.log(2)


def window(frames: int = 50) -> torch.Tensor:
    return torch.randn(frames, 32, generator=torch.Generator().manual_seed(1))


def loud_model(backbone: str = "cnn", **overrides):
    model = tiny_model(backbone, **overrides)
    for head in model.exits:
        torch.nn.init.normal_(head.classifier.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.zeros_(head.classifier.bias)
    return model


def sample(model, method: str = "none", exit_index: int | None = None, **arguments):
    with evaluating(model):
        deepest = model.num_exits if exit_index is None else exit_index
        return sample_window(model, window().numpy(), Sampling(method, 6, 3), deepest, **arguments)


def close(found: np.ndarray, expected: torch.Tensor, rtol: float = 0.0, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found, expected.detach(), rtol=rtol, atol=atol)


def calls_of_stages(model) -> list[int]:
    """The number of every stage of the CNN's trunk that runs from now on, 1 = the first."""
    ran = []
    stages = [*model.easysed.backbone.stages, model.easysed.backbone.temporal_stage]
    for number, stage in enumerate(stages, start=1):
        stage.register_forward_hook(lambda *_, number=number: ran.append(number))
    return ran


# ---- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_none_is_the_plain_pass(backbone):
    model = loud_model(backbone)
    output, found = model(window()[None]), sample(model)
    close(found.logits, output.frame_logits)
    close(found.exit_logits, output.exit_frame_logits[:, 0])
    close(found.embeddings, output.exit_embeddings[-1, 0])
    assert found.weights.tolist() == [1.0] and found.exit_index == model.num_exits


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("blocks", [0, 1])
def test_mc_is_monte_carlo(backbone, blocks):
    model = loud_model(backbone, monte_carlo_blocks=blocks)
    for exit_index in range(1, model.num_exits + 1):
        found = sample(model, "mc", exit_index)
        expected = model.monte_carlo(window()[None], passes=6, seed=3, exit_index=exit_index)
        close(found.logits, expected.frame_logits[:, 0])
    assert found.weights.tolist() == pytest.approx([1 / 6] * 6) and found.logits.shape == (6, 13, 3)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_exits_are_an_ensemble_up_to_the_chosen_one(backbone):
    model = loud_model(backbone)
    every = model(window()[None]).exit_frame_logits[:, 0]
    for exit_index in range(1, model.num_exits + 1):
        found = sample(model, "exits", exit_index, with_all_exits=False)
        close(found.logits, every[:exit_index])
        assert found.weights.tolist() == pytest.approx([1 / exit_index] * exit_index)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("exit_index", [1, 2])
def test_moments_samples_have_the_mean_and_variance_of_the_closed_form(backbone, exit_index):
    model = loud_model(backbone)
    found, expected = sample(model, "moments", exit_index), model.moments(window()[None], exit_index=exit_index)
    weights = found.weights[:, None, None]
    mean = (found.logits * weights).sum(0)
    close(mean, expected.frame_logits[0], rtol=1e-5, atol=1e-4)
    variance = ((found.logits - mean) ** 2 * weights).sum(0)
    close(variance, expected.frame_variances[0], rtol=1e-3, atol=1e-5)
    assert found.weights.sum().item() == pytest.approx(1.0) and expected.frame_variances.min() > 0


def test_moments_of_a_sampled_block_do_not_exist():
    with pytest.raises(ValueError, match="moments are exact for the classifier's dropout alone"):
        sample(loud_model(monte_carlo_blocks=1), "moments")


@pytest.mark.parametrize("method", ["none", "mc", "moments"])
def test_exits_that_nobody_asked_for_are_not_computed(method):
    model = loud_model()
    heads = []
    for number, head in enumerate(model.exits, start=1):
        head.projection.register_forward_hook(lambda *_, number=number: heads.append(number))
    ran = calls_of_stages(model)
    alone = sample(model, method, 2, with_all_exits=False)
    assert heads == [2] and ran == [1, 2]
    assert [bool(np.isnan(exit).all()) for exit in alone.exit_logits] == [True, False, True]
    both = sample(model, method, 2)
    assert heads == [2, 1, 2] and np.array_equal(alone.logits, both.logits)
    assert [bool(np.isnan(exit).any()) for exit in both.exit_logits] == [False, False, True]


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling("magic"), "uncertainty must be one of .*'mc', 'exits', 'moments', 'none'.*got 'magic'"),
        (Sampling("mc", 0), "passes must be a whole number from 1 to 10000, got 0"),
        (Sampling("mc", 20, 0.5), "seed must be an integer, got 0.5"),
        (Sampling("mc", 20, True), "seed must be an integer, got True"),
    ],
)
def test_sampling_out_of_range(sampling, message):
    with pytest.raises(ValueError, match=message):
        sampling.check()
    assert Sampling("mc").check() == ("mc", 20, 0)


# ---- doubt -----------------------------------------------------------------------------------------------------------


def test_entropy_of_logits_is_that_of_their_probabilities():
    logits = np.linspace(-14, 14, 57, dtype=np.float32)
    expected = bernoulli_uncertainty(sigmoid(logits.astype(np.float64))[None]).total
    np.testing.assert_allclose(binary_entropy(logits), expected, rtol=0, atol=2e-6)
    assert binary_entropy(np.zeros(1)).item() == pytest.approx(LN2)
    extreme = binary_entropy(np.array([-1e4, -90.0, 90.0, 1e4], np.float32))
    np.testing.assert_allclose(extreme, 0.0, rtol=0, atol=1e-6)


def test_sigmoid_is_finite_and_right():
    logits = torch.linspace(-200, 200, 4001)
    np.testing.assert_allclose(sigmoid(logits.numpy()), torch.sigmoid(logits), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("unsure_frames", "expected"),
    [(0, 0.0), (3, 0.3 * LN2), (5, 0.5 * LN2), (10, LN2), (25, LN2)],
)
def test_doubt_is_the_worst_class_over_the_worst_span(unsure_frames, expected):
    logits = np.full((40, 3), -60.0)
    logits[:, 1] = 60.0
    logits[12 : 12 + unsure_frames, 2] = 0.0  # 0.4 s of 40 ms frames are 10 frames
    assert window_doubt(logits, 0.04) == pytest.approx(expected, abs=1e-6)


def test_doubt_of_a_window_shorter_than_the_span():
    assert window_doubt(np.array([[0.0], [60.0], [60.0], [60.0]]), 0.04) == pytest.approx(LN2 / 4)
    assert window_doubt(np.array([[0.0, 60.0]]), 0.04) == pytest.approx(LN2)
    assert window_doubt(np.array([[0.0], [60.0]]), 2.0) == pytest.approx(LN2)  # a frame longer than the span


# ---- exits that stop early -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "mc", "moments"])
def test_an_infinite_limit_stops_at_the_first_exit_and_computes_nothing_deeper(method):
    model = loud_model()
    ran = calls_of_stages(model)
    found = sample(model, method, doubt_limits=[math.inf, math.inf])
    assert found.exit_index == 1 and ran == [1]
    assert np.array_equal(found.logits, sample(model, method, 1).logits)
    assert np.isnan(found.exit_logits[1:]).all() and not np.isnan(found.exit_logits[0]).any()


@pytest.mark.parametrize("limits", [[0.0, 0.0], []])
def test_a_limit_of_zero_never_stops(limits):
    model = loud_model()
    for exit_index in (1, 2, 3):
        found = sample(model, "mc", exit_index, doubt_limits=limits)
        assert found.exit_index == exit_index
        assert np.array_equal(found.logits, sample(model, "mc", exit_index).logits)


def test_a_limit_of_zero_does_not_stop_without_any_doubt_either():
    model = loud_model()
    for head in model.exits:
        torch.nn.init.zeros_(head.classifier.weight)
        torch.nn.init.constant_(head.classifier.bias, -200.0)
    found = sample(model, doubt_limits=[0.0, 0.0])
    assert window_doubt(found.logits[0], 0.04) == 0 and found.exit_index == 3


def test_the_first_exit_below_its_limit_speaks():
    model = loud_model()
    with torch.no_grad():
        doubts = [window_doubt(logits[0].numpy(), 0.04) for logits in model(window()[None]).exit_frame_logits]
    for limits, expected in [
        ([doubts[0] * 1.001, math.inf], 1),
        ([doubts[0] * 0.999, math.inf], 2),
        ([doubts[0] * 0.999, doubts[1] * 1.001], 2),
        ([doubts[0] * 0.999, doubts[1] * 0.999], 3),
        ([doubts[0] * 0.999], 3),
    ]:
        assert sample(model, doubt_limits=limits).exit_index == expected
    assert sample(model, exit_index=2, doubt_limits=[0.0, 0.0]).exit_index == 2
