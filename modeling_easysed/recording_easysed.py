"""A whole recording under a method of uncertainty: features, views, windows, and all of it on one time line.

    samples -> log-mel frames                       once per view start that is no multiple of the hop; usually once
    view (shift) x window -> sample_window          long recordings in overlapping windows
    views -> mean probability, entropies            on one grid of times

Times are counted in samples at the model's rate; frame k of a view is centred at start + k x frame_samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .sampling_easysed import Sampling, WindowSamples, network_of, probabilities_and_entropy, sample_window, sigmoid
from .shifts_easysed import average_lines, average_views, view_starts
from .windows_easysed import Window, join_windows, plan_windows

CHUNK_VALUES = 2**16  # probabilities that are averaged at once: they fit in a processor's cache
MIN_CHUNK_FRAMES = 16
FEATURE_BLOCK_FRAMES = 12_000  # log-mel frames made at once (2 minutes), so that the spectrum of hours fits in memory

Progress = Callable[[int, int], None]  # windows done, windows in all


@dataclass
class RecordingSamples:
    """Samples of the frame logits of one recording.

    Attributes:
        views: {start in samples: logits (samples, frames, classes)}.
        weights: (samples,), they sum to 1.
        exit_logits: (exits, frames, classes) of the view that starts at 0; NaN where an exit was not computed.
        embeddings: (frames, exit hidden size) of that view.
        frame_exits: (frames,), the exit that spoke there, 1 = shallowest.
        frame_samples: samples of one output frame.
        hop_samples: samples between log-mel frames.
        num_samples: of the recording.
        log_mel: (log-mel frames, mels), normalised.
    """

    views: dict[int, np.ndarray]
    weights: np.ndarray
    exit_logits: np.ndarray
    embeddings: np.ndarray
    frame_exits: np.ndarray
    frame_samples: int
    hop_samples: int
    num_samples: int
    log_mel: np.ndarray

    @property
    def num_answers(self) -> int:
        """How many probabilities are averaged at every time: samples x views."""
        return len(self.weights) * len(self.views)

    def grid(self) -> np.ndarray:
        """Times (grid,) of the common line, samples: the frames of a single view, else every log-mel frame."""
        step = self.frame_samples if len(self.views) == 1 else self.hop_samples
        return np.arange(0, self.num_samples + 1, step)


class FrameLine(NamedTuple):
    """All views on one time line, (grid, classes) each.

    Attributes:
        probabilities: mean over samples and views.
        total: entropy of that mean, nats.
        aleatoric: mean of the samples' entropies; total less aleatoric is epistemic, never negative.
        spread: standard deviation of the probability over samples and views; between the frames of a view it is at most
            what is given, and just that where the samples move alike.
    """

    probabilities: np.ndarray
    total: np.ndarray
    aleatoric: np.ndarray
    spread: np.ndarray | None = None


def recording_features(extractor: Any, samples: np.ndarray) -> np.ndarray:
    """(samples,) to frames (frames, mels), in blocks with enough margin that the frames are those of one transform."""
    hop = extractor.hop_length_samples
    margin = -(-extractor.fft_length_samples // hop)
    num_frames = extractor.num_frames(len(samples))
    blocks = []
    for start in range(0, num_frames, FEATURE_BLOCK_FRAMES):
        stop = min(start + FEATURE_BLOCK_FRAMES, num_frames)
        first = max(0, start - margin)
        piece = samples[first * hop : (stop + margin) * hop]
        blocks.append(extractor.frames(piece)[start - first : stop - first])
    return np.concatenate(blocks)


def sample_recording(
    model: Any,
    extractor: Any,
    samples: np.ndarray,
    sampling: Sampling,
    shifts: int = 0,
    exit_index: int | None = None,
    doubt_limits: Sequence[float] = (),
    features: np.ndarray | None = None,
    progress: Progress | None = None,
) -> RecordingSamples:
    """Samples of every view and window of a recording.

    Args:
        model, extractor: of one checkpoint; a `Network`, or a model of PyTorch.
        samples: (samples,), mono, at the model's rate.
        sampling: method, passes, seed.
        shifts: steps of 30 ms to either side.
        exit_index: deepest exit to compute; None = the deepest there is.
        doubt_limits: see `sample_window`; the view without shift chooses the exit, the others follow it.
        features: what `recording_features` gives, where it is at hand.
        progress: called with (windows done, windows in all).
    """
    network = network_of(model)
    stride, hop = network.config.frame_stride, extractor.hop_length_samples
    deepest = network.num_exits if exit_index is None else exit_index
    features = recording_features(extractor, samples) if features is None else features
    window, context = window_sizes(network)
    windows = plan_windows(len(features), window, context, stride)
    starts = view_starts(shifts, extractor.sampling_rate, hop * stride)
    starts = [start for start in starts if start < max(len(samples), 1)]
    shifted = {0: features}
    plain: list[WindowSamples] = []
    views = {}
    with network.evaluating():
        for number, start in enumerate(starts):
            if start % hop not in shifted:
                shifted[start % hop] = recording_features(extractor, samples[start % hop :])
            pieces: list[WindowSamples] = []
            for index, (begin, end) in enumerate(windows):
                values = shifted[start % hop][begin + start // hop : end + start // hop]
                chosen, limits = (plain[index].exit_index, ()) if plain else (deepest, doubt_limits)
                if len(values) > 0:
                    pieces.append(sample_window(network, values, sampling, chosen, limits, not plain))
                if progress is not None:
                    progress(number * len(windows) + index + 1, len(starts) * len(windows))
            if len(pieces) == len(windows):  # else the recording ends before the grid's first frame
                views[start] = join_windows([piece.logits for piece in pieces], windows, context, stride)
            plain = pieces if start == 0 else plain
    return RecordingSamples(
        views=views,
        weights=plain[0].weights,
        exit_logits=join_windows([piece.exit_logits for piece in plain], windows, context, stride),
        embeddings=join_windows([piece.embeddings for piece in plain], windows, context, stride),
        frame_exits=_frame_exits(plain, windows, context, stride),
        frame_samples=hop * stride,
        hop_samples=hop,
        num_samples=len(samples),
        log_mel=features,
    )


def window_sizes(model: Any) -> tuple[int, int]:
    """Log-mel frames of a window and of its context, multiples of the frame stride."""
    config = model.config
    frames_per_second = config.sampling_rate / config.hop_length_samples
    sizes = (round(seconds * frames_per_second) for seconds in (config.window_s, config.context_s))
    window, context = (-(-size // config.frame_stride) * config.frame_stride for size in sizes)
    return window, context


def _frame_exits(pieces: list[WindowSamples], windows: list[Window], context: int, stride: int) -> np.ndarray:
    columns = [np.full((len(piece.embeddings), 1), piece.exit_index) for piece in pieces]
    return join_windows(columns, windows, context, stride)[:, 0]


def mean_probabilities(recording: RecordingSamples) -> np.ndarray:
    """`frame_line(recording).probabilities`, (grid, classes), without what else that computes."""
    means = {}
    for start, logits in recording.views.items():
        parts = [_mean_over_samples(sigmoid(logits[:, part]), recording.weights) for part in _chunks(logits)]
        means[start] = np.concatenate(parts)
    if len(means) > 1:
        return np.clip(average_views(means, recording.frame_samples, recording.grid()), 0.0, 1.0)
    return np.clip(means[0], 0.0, 1.0)


def frame_line(recording: RecordingSamples, temperatures: np.ndarray | None = None) -> FrameLine:
    """Mean probability and entropies of all samples and views on the common line.

    Args:
        recording: its samples.
        temperatures: (frames,) divisor of the logits of each frame of the plain view; None = 1.
    """
    lines: dict[int, np.ndarray] = {}  # (3, frames, classes) of every view
    for start, logits in recording.views.items():
        num_frames = logits.shape[-2]
        divisor = np.ones(num_frames, np.float32) if temperatures is None else temperatures.astype(np.float32)
        pieces = [
            _means_over_samples(logits[:, part] / divisor[:num_frames][part, None], recording.weights)
            for part in _chunks(logits)
        ]
        lines[start] = np.concatenate(pieces, axis=1)
    if len(lines) == 1:
        probabilities, aleatoric, spread = lines[0]
    else:
        probabilities, aleatoric, spread = average_lines(lines, recording.frame_samples, recording.grid())
    probabilities = np.clip(probabilities, 0.0, 1.0)
    total = -sum(one * np.log(np.where(one > 0, one, 1)) for one in (probabilities, 1 - probabilities))
    return FrameLine(probabilities, total, np.minimum(aleatoric, total), spread)


def _chunks(logits: np.ndarray) -> list[slice]:
    """Parts of the frames of (samples, frames, classes)."""
    samples, num_frames, classes = logits.shape
    step = max(MIN_CHUNK_FRAMES, CHUNK_VALUES // max(1, samples * classes))
    return [slice(first, first + step) for first in range(0, num_frames, step)]


def _mean_over_samples(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean (frames, classes) of (samples, frames, classes)."""
    return (weights @ values.reshape(len(weights), -1)).reshape(values.shape[1:])


def _means_over_samples(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean, entropy and deviation (3, frames, classes) of probabilities of (samples, frames, classes)."""
    probabilities, entropy = (one.reshape(len(weights), -1) for one in probabilities_and_entropy(logits))
    mean = weights @ probabilities
    probabilities -= mean
    variance = weights @ np.square(probabilities, out=probabilities)
    return np.stack([mean, weights @ entropy, np.sqrt(variance)]).reshape(3, *logits.shape[1:])


__all__ = [
    "FrameLine",
    "Progress",
    "RecordingSamples",
    "frame_line",
    "mean_probabilities",
    "recording_features",
    "sample_recording",
    "window_sizes",
]
