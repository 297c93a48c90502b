"""What one window of a recording gives under a method of uncertainty: samples of its frame logits.

    none     the plain pass                                     1 sample
    mc       Monte Carlo dropout in the exit head               `passes` samples
    exits    the exits up to the chosen one as an ensemble      as many samples as exits
    moments  normal distribution of the logit in closed form    NUM_NODES samples, weighted (Gauss-Hermite)

Whatever the method, all that follows takes weighted samples. With `doubt_limits`, a window stops at the first exit that
is sure enough, and nothing deeper is computed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .modeling_easysed import EasySEDForSoundEventDetection
from .monte_carlo_easysed import check_closed_form, check_passes, normal_nodes, sample_masks

METHODS = ("mc", "exits", "moments", "none")
NUM_NODES = 7  # more change a probability by less than 1e-4
DOUBT_SPAN_S = 0.4  # longer than the ramp at a clear border, shorter than most events


class Sampling(NamedTuple):
    """How to sample: method of `METHODS`, number of passes and seed (mc alone)."""

    method: str = "none"
    passes: int = 20
    seed: int = 0

    def check(self) -> "Sampling":
        """Raises ValueError for an unknown method, or passes or a seed out of range."""
        if self.method not in METHODS:
            raise ValueError(f"uncertainty must be one of {METHODS}, got {self.method!r}")
        check_passes(self.passes)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ValueError(f"seed must be an integer, got {self.seed!r}")
        return self


class WindowSamples(NamedTuple):
    """One window's samples.

    Attributes:
        logits: (samples, output frames, classes).
        weights: (samples,), they sum to 1.
        exit_index: the exit that spoke.
        exit_logits: (exits of the model, output frames, classes), NaN for exits that were not computed.
        embeddings: (output frames, exit hidden size) of the exit that spoke.
    """

    logits: torch.Tensor
    weights: torch.Tensor
    exit_index: int
    exit_logits: torch.Tensor
    embeddings: torch.Tensor


def sample_window(
    model: EasySEDForSoundEventDetection,
    values: torch.Tensor,
    sampling: Sampling,
    exit_index: int,
    doubt_limits: Sequence[float] = (),
    with_all_exits: bool = True,
) -> WindowSamples:
    """Samples of one window.

    Args:
        model: in evaluation mode, see `evaluating`.
        values: (frames, mels), normalised log-mel frames.
        sampling: how.
        exit_index: the deepest exit to compute, 1 = shallowest.
        doubt_limits: of exits 1, 2, ...: the first exit whose doubt is below its limit speaks.
        with_all_exits: also the exits below the one that speaks (always so where samples or limits need them).
    """
    all_exits = with_all_exits or sampling.method == "exits" or len(doubt_limits) > 0
    plain: list[torch.Tensor] = []
    for number, hidden in enumerate(model.easysed.stages(values[None]), start=1):
        if number < exit_index and not all_exits:
            plain.append(torch.empty(0))
            continue
        head = model.exits[number - 1]
        prepared = head.prepare(hidden, None)
        _, frame_logits, embeddings = head.finish(prepared, None)
        plain.append(frame_logits[0].float())
        limit = doubt_limits[number - 1] if number <= len(doubt_limits) else 0.0
        if number == exit_index or window_doubt(plain[-1], model.frame_duration_s) < limit:
            break
    logits, weights = _draw(head, prepared, plain, sampling)
    exit_logits = torch.full((model.num_exits, *plain[-1].shape), torch.nan)
    for index, own in enumerate(plain):
        if own.numel() > 0:
            exit_logits[index] = own.cpu()
    return WindowSamples(logits.float().cpu(), weights, number, exit_logits, embeddings[0].float().cpu())


def _draw(
    head: torch.nn.Module, prepared: torch.Tensor, plain: list[torch.Tensor], sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (samples, frames, classes) and weights (samples,) of one window."""
    if sampling.method == "mc":
        masks = sample_masks(
            sampling.passes, head.num_sites, prepared.shape[1], head.dropout.probability, sampling.seed
        ).to(prepared)
        logits = head.finish_passes(prepared, None, masks)[1][:, 0]
    elif sampling.method == "moments":
        check_closed_form(head.num_sites - 1)
        nodes, weights = normal_nodes(NUM_NODES)
        deviation = head.variances(prepared)[0].float().sqrt()
        return plain[-1] + nodes[:, None, None].to(deviation) * deviation, weights
    elif sampling.method == "exits":
        logits = torch.stack(plain)
    else:
        logits = plain[-1][None]
    return logits, torch.full((len(logits),), 1.0 / len(logits))


def window_doubt(frame_logits: torch.Tensor, frame_duration_s: float) -> float:
    """How unsure a window is, nats: the highest mean over `DOUBT_SPAN_S` of its least sure class's entropy.

    Args:
        frame_logits: (output frames, classes).
        frame_duration_s: seconds of one output frame.
    """
    entropy = binary_entropy(frame_logits).amax(-1)
    # (output frames,)
    span = min(max(1, round(DOUBT_SPAN_S / frame_duration_s)), len(entropy))
    return float(F.avg_pool1d(entropy[None, None], span, stride=1).max())


def binary_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of Bernoulli variables with these logits, any shape; finite for any finite logit."""
    return F.softplus(logits) - logits * torch.sigmoid(logits)


__all__ = ["METHODS", "Sampling", "WindowSamples", "binary_entropy", "sample_window", "window_doubt"]
