"""Monte Carlo dropout in the exit heads, and the same in closed form.

    trunk -> prepare                      once
    keep mask 1 .. P -> finish            per pass: logits (passes, batch, output frames, classes)

A mask is drawn per pass and channel, and shared by all frames and all clips of a batch: one pass is one thinned
network, and a clip gets the same masks alone or in a batch.

Source: Gal & Ghahramani 2016, Dropout as a Bayesian Approximation, ICML, section 4."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput

from .draws_easysed import check_passes


@dataclass
class MonteCarloOutput(ModelOutput):
    """One thinned network per pass; all logits.

    Attributes:
        logits: (passes, batch, classes).
        frame_logits: (passes, batch, output frames, classes).
    """

    logits: torch.Tensor | None = None
    frame_logits: torch.Tensor | None = None


@dataclass
class MomentsOutput(ModelOutput):
    """The frame logits under dropout as a normal distribution per frame and class.

    Attributes:
        frame_logits: (batch, output frames, classes), the mean.
        frame_variances: the same shape, the variance over all dropout masks.
    """

    frame_logits: torch.Tensor | None = None
    frame_variances: torch.Tensor | None = None


def sample_masks(passes: int, num_sites: int, width: int, probability: float, seed: int) -> torch.Tensor:
    """Keep masks (passes, sites, width) on the CPU: 0 with `probability`, else 1 / (1 - probability).

    Raises:
        ValueError: when `passes` is no whole number from 1 to 10 000, or `seed` no integer.
    """
    check_passes(passes)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed must be an integer, got {seed!r}")
    generator = torch.Generator().manual_seed(seed % 2**63)
    kept = torch.rand(passes, num_sites, width, generator=generator) >= probability
    return kept.float() / (1.0 - probability)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every module's own mode after, whatever happens inside."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, was_training in modes:
            module.training = was_training


__all__ = [
    "MonteCarloOutput",
    "MomentsOutput",
    "evaluating",
    "sample_masks",
]
