"""Monte Carlo dropout: masks, one trunk for all passes, seeds, modes, and the closed form against sampling."""

import itertools

import numpy as np
import pytest
import torch
from tiny import tiny_model

from modeling_easysed.draws_easysed import check_closed_form, normal_nodes
from modeling_easysed.monte_carlo_easysed import evaluating, sample_masks

BACKBONES = ["cnn", "transformer"]


def features(batch: int, frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, frames, 32, generator=torch.Generator().manual_seed(seed))


def loud_model(backbone: str = "cnn", scale: float = 1.0, **overrides):
    """A tiny model whose classifiers give probabilities all over [0, 1]."""
    model = tiny_model(backbone, **overrides)
    for head in model.exits:
        torch.nn.init.normal_(head.classifier.weight, std=scale, generator=torch.Generator().manual_seed(1))
        torch.nn.init.zeros_(head.classifier.bias)
    return model


def count_calls(module: torch.nn.Module) -> list[int]:
    """One entry per call of the module from now on: the size of its first argument's first dimension."""
    calls = []
    module.register_forward_hook(lambda _, arguments, __: calls.append(len(arguments[0])))
    return calls


# ---- masks -----------------------------------------------------------------------------------------------------------


def test_masks_drop_a_share_and_keep_the_mean():
    masks = sample_masks(1000, 2, 50, 0.2, seed=0)
    assert masks.shape == (1000, 2, 50)
    assert set(masks.unique().tolist()) == {0.0, 1.25}
    # 100 000 draws: three standard deviations of the share are 0.004
    assert (masks == 0).float().mean().item() == pytest.approx(0.2, abs=0.004)
    assert sample_masks(5, 1, 8, 0.0, seed=0).eq(1).all()


def test_a_seed_fixes_the_masks_and_another_changes_them():
    first = sample_masks(20, 1, 96, 0.2, seed=7)
    assert torch.equal(first, sample_masks(20, 1, 96, 0.2, seed=7))
    assert not torch.equal(first, sample_masks(20, 1, 96, 0.2, seed=8))
    assert not torch.equal(sample_masks(20, 1, 96, 0.2, seed=-1), sample_masks(20, 1, 96, 0.2, seed=0))
    assert not torch.equal(first[0], first[1])


def test_more_passes_begin_with_the_same_masks():
    many = sample_masks(500, 2, 9, 0.3, seed=3)
    for passes in (1, 2, 20, 131):
        assert torch.equal(sample_masks(passes, 2, 9, 0.3, seed=3), many[:passes])


@pytest.mark.parametrize("passes", [0, -1, 10_001, 2.5, True, "20"])
def test_number_of_passes_out_of_range(passes):
    with pytest.raises(ValueError, match=f"passes must be a whole number from 1 to 10000, got {passes!r}"):
        tiny_model().monte_carlo(features(1, 8), passes=passes)


@pytest.mark.parametrize("seed", [0.5, True, None, "0"])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(ValueError, match=f"seed must be an integer, got {seed!r}"):
        tiny_model().monte_carlo(features(1, 8), seed=seed)


# ---- passes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_pass_is_the_classifier_on_masked_embeddings(backbone):
    model, inputs = loud_model(backbone), features(2, 30)
    output = model.monte_carlo(inputs, passes=5, seed=4)
    assert output.frame_logits.shape == (5, 2, 8, 3) and output.logits.shape == (5, 2, 3)
    embeddings, classifier = model(inputs).exit_embeddings[-1], model.exits[-1].classifier
    for one, mask in zip(output.frame_logits, sample_masks(5, 1, 8, 0.2, seed=4), strict=True):
        torch.testing.assert_close(one, classifier(embeddings * mask[0]), rtol=0, atol=1e-5)
    probabilities = torch.sigmoid(output.frame_logits)
    clip = probabilities.square().sum(2) / probabilities.sum(2)
    torch.testing.assert_close(torch.sigmoid(output.logits), clip, rtol=0, atol=1e-5)
    assert output.frame_logits.std(0).min() > 0


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("blocks", [0, 1, 2])
@pytest.mark.parametrize("exit_index", [None, 1])
def test_recomputing_everything_gives_the_same(backbone, blocks, exit_index):
    sizes = {"exit_dilations": [1, 2], "exit_dropout_blocks": 2, "monte_carlo_blocks": blocks}
    model = loud_model(backbone, **sizes)
    inputs, mask = features(2, 41), torch.ones(2, 41)
    mask[1, 20:] = 0
    arguments = {"passes": 7, "seed": 2, "attention_mask": mask, "exit_index": exit_index}
    reused = model.monte_carlo(inputs, **arguments)
    recomputed = model.monte_carlo(inputs, reuse_trunk=False, **arguments)
    torch.testing.assert_close(reused.frame_logits, recomputed.frame_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(reused.logits, recomputed.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_trunk_runs_once_and_the_passes_are_one_batch(backbone):
    sizes = {"exit_dilations": [1, 2], "exit_dropout_blocks": 1, "monte_carlo_blocks": 1}
    model, inputs = tiny_model(backbone, **sizes), features(2, 16)
    head = model.exits[-1]
    stem, shared, drawn = (count_calls(part) for part in (model.easysed.backbone.stem, *head.blocks))
    model.monte_carlo(inputs, passes=6)
    assert (stem, shared, drawn) == ([2], [2], [12])
    model.monte_carlo(inputs, passes=6, reuse_trunk=False)
    assert stem == [2] * 7 and drawn == [12] + [2] * 6


def test_a_shallow_exit_computes_nothing_deeper():
    model = loud_model()
    deeper = count_calls(model.easysed.backbone.stages[1])
    found = model.monte_carlo(features(1, 20), passes=3, exit_index=1)
    assert deeper == []
    expected = model.student(1).monte_carlo(features(1, 20), passes=3)
    torch.testing.assert_close(found.frame_logits, expected.frame_logits, rtol=0, atol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("blocks", [0, 1])
def test_a_clip_gets_the_same_passes_alone_and_in_a_batch(backbone, blocks):
    model, inputs = loud_model(backbone, monte_carlo_blocks=blocks), features(8, 30)
    together = model.monte_carlo(inputs, passes=5, seed=9)
    for row in range(8):
        alone = model.monte_carlo(inputs[row : row + 1], passes=5, seed=9)
        torch.testing.assert_close(together.frame_logits[:, row], alone.frame_logits[:, 0], rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(together.logits[:, row], alone.logits[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_padded_clip_gets_the_passes_of_the_clip_alone(backbone):
    model, inputs, mask = loud_model(backbone, monte_carlo_blocks=1), features(2, 40), torch.ones(2, 40)
    mask[1, 22:] = 0
    padded = model.monte_carlo(inputs, passes=4, attention_mask=mask)
    alone = model.monte_carlo(inputs[1:, :22], passes=4)
    torch.testing.assert_close(padded.frame_logits[:, 1, :6], alone.frame_logits[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(padded.logits[:, 1], alone.logits[:, 0], rtol=0, atol=1e-4)


def test_seeds_reproduce_and_leave_the_global_generator_alone():
    model, inputs = loud_model(), features(1, 30)
    before = torch.get_rng_state()
    first, again, other = (model.monte_carlo(inputs, seed=seed).frame_logits for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len(first) == 20
    torch.testing.assert_close(model.monte_carlo(inputs, passes=4, seed=5).frame_logits, first[:4])


def test_the_number_of_threads_changes_nothing_that_matters():
    model, inputs, before = loud_model(exit_hidden_size=96), features(2, 400), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(model.monte_carlo(inputs, seed=1).frame_logits)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_without_dropout_every_pass_is_the_plain_one():
    model, inputs = loud_model(dropout=0.0), features(1, 20)
    found = model.monte_carlo(inputs, passes=3).frame_logits
    torch.testing.assert_close(found, model(inputs).frame_logits.expand(3, -1, -1, -1), rtol=0, atol=1e-6)
    assert model.moments(inputs).frame_variances.eq(0).all()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_half_precision_passes(backbone):
    found = loud_model(backbone).to(torch.bfloat16).monte_carlo(features(1, 20), passes=3)
    assert found.frame_logits.dtype == torch.bfloat16 and torch.isfinite(found.logits).all()


# ---- modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["monte_carlo", "moments"])
def test_batch_norm_and_other_dropout_stay_in_evaluation(method):
    model, inputs = loud_model("transformer"), features(2, 30)
    expected = getattr(model, method)(inputs)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    model.easysed.eval()  # as when only the heads are finetuned
    modes = [module.training for module in model.modules()]
    found = getattr(model, method)(inputs)
    assert torch.equal(found.frame_logits, expected.frame_logits)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert not found.frame_logits.requires_grad


def test_modes_come_back_after_an_exception():
    model = tiny_model().train()
    model.exits[0].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(ValueError, match="input_values must have shape"):
        model.monte_carlo(torch.zeros(1, 20, 31))
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules()) and torch.is_inference_mode_enabled()
        raise KeyError
    assert [module.training for module in model.modules()] == modes and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("method", ["monte_carlo", "moments"])
@pytest.mark.parametrize("index", [0, 4])
def test_unknown_exit(method, index):
    with pytest.raises(ValueError, match=f"exit_index must be between 1 and 3, got {index}"):
        getattr(tiny_model(), method)(features(1, 8), exit_index=index)


# ---- closed form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("exit_index", [1, None])
def test_moments_equal_those_over_all_masks(backbone, exit_index):
    """With 8 channels there are 256 masks: each with its probability, they give mean and variance exactly."""
    model, inputs = loud_model(backbone, dropout=0.3), features(2, 21)
    index = model.num_exits if exit_index is None else exit_index
    embeddings, classifier = model(inputs).exit_embeddings[index - 1].double(), model.exits[index - 1].classifier
    kept = torch.tensor(list(itertools.product([0, 1], repeat=8)), dtype=torch.float64)
    chance = 0.7 ** kept.sum(1) * 0.3 ** (8 - kept.sum(1))
    masked = embeddings * (kept / 0.7)[:, None, None, :]
    logits = masked @ classifier.weight.double().t() + classifier.bias.double()
    # (masks, batch, output frames, classes)
    mean = torch.einsum("m,mbtk->btk", chance, logits)
    variance = torch.einsum("m,mbtk->btk", chance, (logits - mean) ** 2)
    found = model.moments(inputs, exit_index=exit_index)
    torch.testing.assert_close(found.frame_logits.double(), mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.frame_variances.double(), variance, rtol=1e-4, atol=1e-6)
    assert variance.min() > 0


@pytest.mark.parametrize("backbone", BACKBONES)
def test_moments_agree_with_ten_thousand_passes(backbone):
    model, inputs = loud_model(backbone, scale=0.25, exit_hidden_size=96), features(1, 60)
    passes = model.monte_carlo(inputs, passes=10_000).frame_logits
    moments = model.moments(inputs)
    deviation = moments.frame_variances.sqrt()
    # five standard errors of the mean over 10 000 passes
    assert ((passes.mean(0) - moments.frame_logits).abs() < 0.05 * deviation).all()
    torch.testing.assert_close(passes.var(0), moments.frame_variances, rtol=0.1, atol=0)
    nodes, weights = (torch.from_numpy(part)[:, None, None, None] for part in normal_nodes(7))
    closed = (torch.sigmoid(moments.frame_logits + nodes * deviation) * weights).sum(0)
    sampled = torch.sigmoid(passes).mean(0)
    assert sampled.std() > 0.2 and torch.sigmoid(passes).std(0).mean() > 0.05
    torch.testing.assert_close(closed, sampled, rtol=0, atol=0.01)


def test_moments_of_a_sampled_block_do_not_exist():
    with pytest.raises(ValueError, match=r"monte_carlo_blocks=0\), got 1: use uncertainty='mc'"):
        tiny_model(monte_carlo_blocks=1).moments(features(1, 8))
    check_closed_form(0)


def test_nodes_integrate_over_a_normal_distribution():
    nodes, weights = (torch.from_numpy(part).double() for part in normal_nodes(7))
    for power, expected in enumerate([1, 0, 1, 0, 3, 0, 15, 0, 105]):
        assert float((weights * nodes**power).sum()) == pytest.approx(expected, abs=1e-4)
    x = np.linspace(-12, 12, 200_001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    for mean, deviation in ((0.0, 1.0), (-3.0, 0.5), (2.0, 1.5)):
        exact = np.trapezoid(density / (1 + np.exp(-mean - deviation * x)), x)
        found = float((weights * torch.sigmoid(mean + deviation * nodes)).sum())
        assert found == pytest.approx(exact, abs=1e-3)
