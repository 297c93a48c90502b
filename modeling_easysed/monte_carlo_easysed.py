"""Monte Carlo dropout in the exit heads, and the same in closed form.

    trunk -> prepare                      once
    keep mask 1 .. P -> finish            per pass: logits (passes, batch, output frames, classes)

A mask is drawn per pass and channel, and shared by all frames and all clips of a batch: one pass is one thinned
network, and a clip gets the same masks alone or in a batch.

Source: Gal & Ghahramani 2016, Dropout as a Bayesian Approximation, ICML, section 4."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers.utils import ModelOutput

MAX_PASSES = 10_000


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


def check_passes(passes: int) -> None:
    """Raises ValueError when `passes` is no whole number from 1 to 10 000."""
    if isinstance(passes, bool) or not isinstance(passes, int) or not 1 <= passes <= MAX_PASSES:
        raise ValueError(f"passes must be a whole number from 1 to {MAX_PASSES}, got {passes!r}; 20 is usual")


def check_closed_form(monte_carlo_blocks: int) -> None:
    """Raises ValueError when dropout in front of a block, whose output is no sum of its inputs, is sampled as well."""
    if monte_carlo_blocks > 0:
        raise ValueError(
            f"moments are exact for the classifier's dropout alone (monte_carlo_blocks=0), got {monte_carlo_blocks}: "
            "use uncertainty='mc'"
        )


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


def normal_nodes(num_nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights, each (nodes,), whose weighted sum is the mean over a standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    return torch.from_numpy(nodes).float(), torch.from_numpy(weights / math.sqrt(2 * math.pi)).float()


__all__ = [
    "MonteCarloOutput",
    "MomentsOutput",
    "check_closed_form",
    "check_passes",
    "evaluating",
    "normal_nodes",
    "sample_masks",
]
