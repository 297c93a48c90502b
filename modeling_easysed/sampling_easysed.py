"""What one window of a recording gives under a method of uncertainty: samples of its frame logits.

    none     the plain pass                                     1 sample
    mc       Monte Carlo dropout in the exit head               `passes` samples
    exits    the exits up to the chosen one as an ensemble      as many samples as exits
    moments  normal distribution of the logit in closed form    NUM_NODES samples, weighted (Gauss-Hermite)

Whatever the method, all that follows takes weighted samples. With `doubt_limits`, a window stops at the first exit that
is sure enough, and nothing deeper is computed. The network may be any runtime's: see `Network`."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from .draws_easysed import check_closed_form, check_passes, normal_nodes, seed_masks

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


class Network(Protocol):
    """A trunk with exits on some runtime; what it hands from stage to exit is its own affair.

    Attributes:
        config: sizes by the names of `EasySEDConfig`.
        num_exits: exits, 1 = shallowest.
        num_sites, width: of the masks.
    """

    config: Any
    num_exits: int
    num_sites: int
    width: int

    def evaluating(self) -> AbstractContextManager[None]:
        """Around all that follows."""

    def leaving_one(self) -> "Network":
        """The same for use in a thread beside others that work as well: it leaves them a processor if it can."""

    def stages(self, values: np.ndarray) -> Iterator[Any]:
        """Of a window (frames, mels), one after the other: nothing is computed ahead."""

    def plain(self, exit_index: int, stage: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """What passes share, frame logits (output frames, classes), embeddings (output frames, width)."""

    def passes(self, exit_index: int, shared: Any, masks: np.ndarray) -> np.ndarray:
        """Frame logits (passes, output frames, classes) under masks (passes, sites, width)."""

    def deviations(self, exit_index: int, shared: Any) -> np.ndarray:
        """Standard deviation (output frames, classes) of the frame logits over all masks."""


class WindowSamples(NamedTuple):
    """One window's samples.

    Attributes:
        logits: (samples, output frames, classes).
        weights: (samples,), they sum to 1.
        exit_index: the exit that spoke.
        exit_logits: (exits of the model, output frames, classes), NaN for exits that were not computed.
        embeddings: (output frames, exit hidden size) of the exit that spoke.
    """

    logits: np.ndarray
    weights: np.ndarray
    exit_index: int
    exit_logits: np.ndarray
    embeddings: np.ndarray


def network_of(model: Any) -> Network:
    """A network as it is, a model of PyTorch as a network."""
    if hasattr(model, "stages"):
        return model
    from .torch_network_easysed import TorchNetwork

    return TorchNetwork(model)


def sample_window(
    model: Any,
    values: np.ndarray,
    sampling: Sampling,
    exit_index: int,
    doubt_limits: Sequence[float] = (),
    with_all_exits: bool = True,
) -> WindowSamples:
    """Samples of one window.

    Args:
        model: a `Network`, or a model of PyTorch; inside `evaluating`.
        values: (frames, mels), normalised log-mel frames.
        sampling: how.
        exit_index: the deepest exit to compute, 1 = shallowest.
        doubt_limits: of exits 1, 2, ...: the first exit whose doubt is below its limit speaks.
        with_all_exits: also the exits below the one that speaks (always so where samples or limits need them).
    """
    network = network_of(model)
    all_exits = with_all_exits or sampling.method == "exits" or len(doubt_limits) > 0
    plain: dict[int, np.ndarray] = {}
    for number, stage in enumerate(network.stages(values), start=1):
        if number < exit_index and not all_exits:
            continue
        shared, plain[number], embeddings = network.plain(number, stage)
        limit = doubt_limits[number - 1] if number <= len(doubt_limits) else 0.0
        if number == exit_index or window_doubt(plain[number], network.config.frame_duration_s) < limit:
            break
    logits, weights = _draw(network, number, shared, plain, sampling)
    exit_logits = np.full((network.num_exits, *plain[number].shape), np.nan, np.float32)
    for index, own in plain.items():
        exit_logits[index - 1] = own
    return WindowSamples(logits, weights, number, exit_logits, embeddings)


def _draw(
    network: Network, number: int, shared: Any, plain: dict[int, np.ndarray], sampling: Sampling
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (samples, frames, classes) and weights (samples,) of one window."""
    if sampling.method == "mc":
        sizes = (sampling.passes, network.num_sites, network.width, network.config.dropout)
        logits = network.passes(number, shared, seed_masks(*sizes, sampling.seed))
    elif sampling.method == "moments":
        check_closed_form(network.num_sites - 1)
        nodes, weights = normal_nodes(NUM_NODES)
        return plain[number] + nodes[:, None, None] * network.deviations(number, shared), weights
    elif sampling.method == "exits":
        logits = np.stack(list(plain.values()))
    else:
        logits = plain[number][None]
    return logits, np.full(len(logits), 1.0 / len(logits), np.float32)


def window_doubt(frame_logits: np.ndarray, frame_duration_s: float) -> float:
    """How unsure a window is, nats: the highest mean over `DOUBT_SPAN_S` of its least sure class's entropy.

    Args:
        frame_logits: (output frames, classes).
        frame_duration_s: seconds of one output frame.
    """
    entropy = binary_entropy(frame_logits).max(axis=-1)
    # (output frames,)
    span = min(max(1, round(DOUBT_SPAN_S / frame_duration_s)), len(entropy))
    return float(np.lib.stride_tricks.sliding_window_view(entropy, span).mean(axis=1).max())


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, any shape, without overflow."""
    values = np.asarray(np.multiply(logits, np.float32(0.5), order="C"))
    np.tanh(values, out=values)
    values += np.float32(1.0)
    values *= np.float32(0.5)
    return values[()]


def probabilities_and_entropy(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and entropies in nats of Bernoulli variables with these logits, any shape; finite where these are.

    From one exponential, in place: what is written anew costs more here than what is computed.
    """
    distance = np.asarray(np.abs(logits, order="C"))
    rarer = np.negative(distance)
    np.exp(rarer, out=rarer)
    entropy = rarer + np.float32(1.0)
    rarer /= entropy  # probability of the rarer outcome
    np.log(entropy, out=entropy)
    distance *= rarer
    entropy += distance
    probabilities = np.subtract(np.greater(logits, 0), rarer, out=rarer)
    return np.abs(probabilities, out=probabilities), entropy


def binary_entropy(logits: np.ndarray) -> np.ndarray:
    """Entropy in nats of Bernoulli variables with these logits, any shape; finite for any finite logit."""
    return probabilities_and_entropy(logits)[1]


__all__ = [
    "METHODS",
    "Network",
    "Sampling",
    "WindowSamples",
    "binary_entropy",
    "network_of",
    "probabilities_and_entropy",
    "sample_window",
    "sigmoid",
    "window_doubt",
]
