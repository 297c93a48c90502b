"""What is measured on one candidate event: its level in every sample, view and exit, its borders, its surroundings.

Calibration turns evidence into a confidence and intervals, reasons turn it into words. Levels are logits of mean
probabilities inside the event, so that 0.99 and 0.999 differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .decoding_easysed import Box, candidate_boxes, frame_borders
from .recording_easysed import FrameLine, RecordingSamples
from .sampling_easysed import sigmoid

LEVEL_LIMIT = 1e-3  # probabilities are clipped to [1e-3, 1 - 1e-3] before their logit
BORDER_REACH_S = 0.5  # how far from a border its crossings in single samples are looked for
FLOOR_QUANTILE = 0.1  # of a mel band over the recording: what it holds when nothing sounds


@dataclass
class Evidence:
    """Measured on one candidate.

    Attributes:
        box: onset, offset, class and score.
        exit_index: the exit that spoke at its middle.
        weakest_exit: smallest level among the exits that were computed, logit.
        exit_spread: standard deviation of the exits' levels, logits; 0 for one exit.
        sample_spread: standard deviation of the level over samples, within a view, logits.
        shift_spread: standard deviation of the level over views, logits.
        onset_spread, offset_spread: root mean square distance of the border in single samples and views, seconds.
        onset_rise, offset_rise: seconds that the mean line would need for its level at the slope it has at the border.
        overlap: highest mean probability of another class inside.
        contrast_db: mean of the loudest tenth of mel cells inside over the recording's floor, dB.
        total, aleatoric, epistemic: means over the frames inside, nats.
        embedding: (exit hidden size,) mean over the frames inside.
    """

    box: Box
    exit_index: int
    weakest_exit: float
    exit_spread: float
    sample_spread: float
    shift_spread: float
    onset_spread: float
    offset_spread: float
    onset_rise: float
    offset_rise: float
    overlap: float
    contrast_db: float
    total: float
    aleatoric: float
    epistemic: float
    embedding: np.ndarray


def to_logit(probability: np.ndarray | float) -> np.ndarray:
    """Logit of probabilities clipped to [1e-3, 1 - 1e-3], any shape."""
    clipped = np.minimum(np.maximum(probability, LEVEL_LIMIT), 1 - LEVEL_LIMIT)
    return np.log(clipped / (1 - clipped))


class _Measured(NamedTuple):
    """A recording as arrays: what is measured on every box of it."""

    logits: dict[float, np.ndarray]  # {start of the view in seconds: (samples, frames, classes)}
    weights: np.ndarray  # (samples,)
    exits: np.ndarray  # (exits, frames, classes), probabilities, NaN where an exit was not computed
    mean: np.ndarray  # (grid, classes)
    total: np.ndarray  # (grid, classes)
    aleatoric: np.ndarray  # (grid, classes)
    log_mel: np.ndarray  # (log-mel frames, mels), normalised
    floor: np.ndarray  # (mels,), normalised: what a band holds when nothing sounds
    one_db: np.ndarray  # dB of one unit of them, (mels,) or one for all
    embeddings: np.ndarray  # (frames, exit hidden size)
    frame_exits: np.ndarray  # (frames,)
    frame_s: float
    grid_s: float
    hop_s: float


def gather_evidence(
    boxes: Sequence[Box],
    recording: RecordingSamples,
    raw: np.ndarray,
    line: FrameLine,
    sampling_rate: int,
    mel_std: Sequence[float] | None,
    floor_db: np.ndarray | None = None,
) -> list[Evidence]:
    """Evidence of every candidate.

    Args:
        boxes: candidates decoded from `raw`.
        recording: its samples.
        raw: (grid, classes), the probabilities that were decoded.
        line: the line that is shown, after the temperatures; its entropies are reported.
        sampling_rate: Hz of the samples.
        mel_std: dB of one unit of the normalised log-mel frames; None = 1.
        floor_db: (mels,) what every mel band holds when nothing sounds; None = as in this recording.
    """
    if not boxes:
        return []
    frame_s, hop_s = recording.frame_samples / sampling_rate, recording.hop_samples / sampling_rate
    one_db = np.float32(1.0) if mel_std is None else np.asarray(mel_std, np.float32)
    floor = quantile_of_columns(recording.log_mel, FLOOR_QUANTILE) if floor_db is None else floor_db / one_db
    measured = _Measured(
        logits={start / sampling_rate: logits for start, logits in recording.views.items()},
        weights=recording.weights,
        exits=sigmoid(recording.exit_logits),
        mean=raw,
        total=line.total,
        aleatoric=line.aleatoric,
        log_mel=recording.log_mel,
        floor=floor,
        one_db=one_db,
        embeddings=recording.embeddings,
        frame_exits=recording.frame_exits,
        frame_s=frame_s,
        grid_s=frame_s if len(recording.views) == 1 else hop_s,
        hop_s=hop_s,
    )
    return [_evidence_of(box, measured) for box in boxes]


def _evidence_of(box: Box, measured: _Measured) -> Evidence:
    own, weights, mean = box.class_index, measured.weights, measured.mean
    inside = frames_inside(box, 0.0, measured.frame_s, measured.exits.shape[1])
    on_grid = frames_inside(box, 0.0, measured.grid_s, len(mean))
    in_frames = frames_inside(box, 0.0, measured.hop_s, len(measured.log_mel))
    exit_levels = to_logit(measured.exits[:, inside, own].mean(1))
    exit_levels = exit_levels[~np.isnan(exit_levels)]
    near = _around(box, measured)
    levels = sample_levels(box, near, measured.frame_s)
    # (views, samples)
    view_levels = levels @ weights
    onset, offset = (
        border_spread(box, rising, near, weights, measured.frame_s, mean[:, own], measured.grid_s)
        for rising in (True, False)
    )
    others = np.delete(mean[on_grid].mean(0), own)
    aleatoric, total = (float(values[on_grid, own].mean()) for values in (measured.aleatoric, measured.total))
    return Evidence(
        box=box,
        exit_index=int(measured.frame_exits[(inside.start + inside.stop) // 2]),
        weakest_exit=float(exit_levels.min()),
        exit_spread=float(exit_levels.std()),
        sample_spread=float(np.sqrt(((levels - view_levels[:, None]) ** 2 @ weights).mean())),
        shift_spread=float(view_levels.std()),
        onset_spread=onset[0],
        offset_spread=offset[0],
        onset_rise=onset[1],
        offset_rise=offset[1],
        overlap=float(others.max()) if len(others) > 0 else 0.0,
        contrast_db=contrast((measured.log_mel[in_frames] - measured.floor) * measured.one_db),
        total=total,
        aleatoric=aleatoric,
        epistemic=total - aleatoric,
        embedding=measured.embeddings[inside].mean(0),
    )


class _Near(NamedTuple):
    """Probabilities of a box's class in and around it.

    Attributes:
        values: (views, samples, frames); where a view ends earlier its last frame is repeated: no line crosses there.
        first_s: (views,) centre of each view's first frame, seconds.
        lengths: (views,) frames without the repeated ones.
    """

    values: np.ndarray
    first_s: np.ndarray
    lengths: np.ndarray


def _around(box: Box, measured: _Measured) -> _Near:
    margin_s, frame_s = BORDER_REACH_S + 2 * measured.frame_s, measured.frame_s
    firsts = np.array(list(measured.logits))
    starts = np.maximum(0, ((box.onset - margin_s - firsts) / frame_s).astype(np.int64))
    stops = ((box.offset + margin_s - firsts) / frame_s).astype(np.int64) + 1
    stops = np.minimum(stops, [logits.shape[1] for logits in measured.logits.values()])
    frames = _frames_between(starts, stops)
    near = [logits[:, own, box.class_index] for logits, own in zip(measured.logits.values(), frames, strict=True)]
    return _Near(sigmoid(np.stack(near)), firsts + starts * frame_s, stops - starts)


def _frames_between(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Frames start .. stop - 1 of every view, (views, longest), the last one repeated."""
    return np.minimum(starts[:, None] + np.arange((stops - starts).max()), stops[:, None] - 1)


def find_candidates(
    recording: RecordingSamples,
    raw: np.ndarray,
    line: FrameLine,
    decoding: dict[str, Any] | None,
    duration: float,
    floor: float | np.ndarray,
    extractor: Any,
) -> list[Evidence]:
    """Candidates of a recording with a score above `floor`, one for all or (classes,), and their evidence.

    Args:
        recording, raw, line: see `gather_evidence`.
        decoding: parameters of one exit, see `decode`.
        duration: seconds of the recording.
        extractor: the front end that its features came from.
    """
    step = recording.frame_samples if len(recording.views) == 1 else recording.hop_samples
    borders = frame_borders(len(raw), step / extractor.sampling_rate, duration)
    floors = np.broadcast_to(floor, raw.shape[1])
    boxes = [box for box in candidate_boxes(raw, borders, decoding) if box.score > floors[box.class_index]]
    return gather_evidence(boxes, recording, raw, line, extractor.sampling_rate, extractor.mel_std)


def frames_inside(box: Box, first_s: float, frame_s: float, num_frames: int) -> slice:
    """Frames whose centre, first_s + k x frame_s, lies in the box; at least one."""
    start = min(max(math.ceil((box.onset - first_s) / frame_s - 1e-6), 0), num_frames - 1)
    stop = min(max(math.floor((box.offset - first_s) / frame_s + 1e-6) + 1, start + 1), num_frames)
    return slice(start, stop)


def sample_levels(box: Box, near: _Near, frame_s: float) -> np.ndarray:
    """Level of the box in every view and sample, (views, samples), logits.

    Args:
        box: the candidate.
        near: its class around it.
        frame_s: seconds of one output frame.
    """
    is_inside = np.zeros((len(near.values), near.values.shape[2], 1), near.values.dtype)
    for own, first_s, length in zip(is_inside, near.first_s.tolist(), near.lengths.tolist(), strict=True):
        own[frames_inside(box, first_s, frame_s, length)] = 1.0
    return to_logit((near.values @ is_inside / is_inside.sum(1, keepdims=True))[..., 0])


def border_spread(
    box: Box, rising: bool, near: _Near, weights: np.ndarray, frame_s: float, mean: np.ndarray, grid_s: float
) -> tuple[float, float]:
    """Spread and rise of the onset (`rising`) or offset of a box, seconds; see `Evidence`.

    In every sample the border is where its line crosses the mean line's value at the border, the nearest such place;
    a sample that does not cross within reach counts as out of reach.

    Args:
        mean: (grid,) mean line of the class; grid_s: seconds between its points.
        Others as in `sample_levels`; weights: (samples,).
    """
    border = box.onset if rising else box.offset
    level = float(np.interp(border, np.arange(len(mean)) * grid_s, mean))
    starts = np.maximum(0, ((border - BORDER_REACH_S - near.first_s) / frame_s).astype(np.int64))
    stops = np.minimum(((border + BORDER_REACH_S - near.first_s) / frame_s).astype(np.int64) + 2, near.lengths)
    frames = _frames_between(starts, np.maximum(stops, starts + 1))
    window = np.take_along_axis(near.values, frames[:, None], axis=2)
    left, right = window[..., :-1], window[..., 1:]
    crosses = (left < level) & (right >= level) if rising else (left >= level) & (right < level)
    view, sample, place = np.nonzero(crosses)
    before, after = left[crosses], right[crosses]
    times = near.first_s[view] + (frames[view, place] + (level - before) / (after - before)) * frame_s
    distance = np.full(window.shape[:2], BORDER_REACH_S)
    np.minimum.at(distance, (view, sample), np.abs(times - border))
    square = float((distance**2).sum(0) @ weights) / len(distance)
    here = min(max(math.floor(border / grid_s + 0.5 + 1e-6), 0), len(mean) - 1)  # borders lie between two points
    reach = max(1, round(frame_s / grid_s))
    low, high = max(0, here - reach), min(len(mean) - 1, here + reach)
    slope = abs(float(mean[high] - mean[low])) / max((high - low) * grid_s, 1e-9)
    top = float(mean[frames_inside(box, 0.0, grid_s, len(mean))].max())
    return math.sqrt(square), min(BORDER_REACH_S, top / max(slope, 1e-9))


def quantile_of_columns(rows: np.ndarray, quantile: float) -> np.ndarray:
    """`np.quantile(rows, quantile, axis=0)` of (rows, values), several times faster: whole lines are sorted."""
    position = quantile * (len(rows) - 1)
    lower = int(position)
    upper = min(lower + 1, len(rows) - 1)
    lines = np.sort(np.ascontiguousarray(rows.T), axis=1)
    return lines[:, lower] + np.float32(position - lower) * (lines[:, upper] - lines[:, lower])


def contrast(above_floor: np.ndarray) -> float:
    """Mean of the loudest tenth of the cells (frames, mels), dB over the floor."""
    count = max(1, above_floor.size // 10)
    return float(np.partition(above_floor, above_floor.size - count, axis=None)[-count:].mean())


__all__ = [
    "Evidence",
    "find_candidates",
    "frames_inside",
    "gather_evidence",
    "quantile_of_columns",
    "sample_levels",
    "to_logit",
]
