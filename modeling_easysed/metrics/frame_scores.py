"""Frame scores to detections, at all thresholds at once.

A run of frames above a threshold stays the same detection until the threshold falls to the higher of the two scores
beside it. A score sequence of T frames therefore has at most T different detections over all thresholds, each alive
for one interval of thresholds; listing them replaces thresholding T times.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .events import EvaluationSet, to_microseconds
from .intersection import Detections, lay_end_to_end


@dataclass(frozen=True)
class FrameScores:
    """The frames of all files after one another on one timeline, with a separator before, between and after files.

    Attributes:
        onset: (frames,) whole microseconds on the timeline.
        offset: (frames,) whole microseconds on the timeline.
        values: (frames, classes) scores; -inf in the separators.
        longest_file: frames of the longest file.
    """

    onset: np.ndarray
    offset: np.ndarray
    values: np.ndarray
    longest_file: int


def read_scores(scores: Mapping[str, Mapping[str, Any]], evaluation_set: EvaluationSet) -> FrameScores:
    """Read `{file: {"timestamps": T + 1 borders in seconds, "values": T x C scores}}`, clipped to the files.

    Raises:
        ValueError: for shapes that do not fit, borders that do not increase, or scores that are not finite.
    """
    num_classes = len(evaluation_set.classes)
    separator = (np.zeros(1), np.zeros(1), np.full((1, num_classes), -np.inf))
    blocks, cut_files = [separator], []
    file_starts = lay_end_to_end(evaluation_set.durations)
    for file, start, duration in zip(evaluation_set.files, file_starts, evaluation_set.durations, strict=True):
        timestamps, values = _read_file(scores[file], f"scores[{file!r}]", num_classes)
        if len(values) > 0 and (timestamps[-2] >= duration or timestamps[1] <= 0):
            cut_files.append(file)
        borders = np.clip(timestamps, 0, duration)
        kept = borders[1:] > borders[:-1]
        blocks += [(start + borders[:-1][kept], start + borders[1:][kept], values[kept]), separator]
    if cut_files:
        warnings.warn(
            f"scores: dropped frames wholly outside their file in {len(cut_files)} file(s), the first is "
            f"{cut_files[0]!r}; cut the scores or correct the durations",
            stacklevel=3,
        )
    onset, offset, values = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
    return FrameScores(onset, offset, values, max(len(block[0]) for block in blocks))


def _read_file(file_scores: Mapping[str, Any], place: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Borders (frames + 1,) in whole microseconds and scores (frames, classes) of one file."""
    timestamps = np.asarray(file_scores["timestamps"], dtype=np.float64)
    values = np.asarray(file_scores["values"], dtype=np.float64)
    if values.size == 0:
        values = values.reshape(0, num_classes)
    if values.ndim != 2 or values.shape[1] != num_classes:
        raise ValueError(
            f"{place} values must be frames x {num_classes} classes, got {values.shape}; give one column per class"
        )
    if timestamps.shape != (len(values) + 1,):
        raise ValueError(
            f"{place} must have one timestamp more than frames, got {timestamps.shape} for {len(values)} frames; "
            "give the border after the last frame as well"
        )
    if not np.all(np.diff(timestamps) > 0):
        raise ValueError(f"{place} timestamps must increase, got {_first_fall(timestamps)}; sort the frames")
    if not np.isfinite(values).all() or not np.isfinite(timestamps).all():
        raise ValueError(f"{place} must be finite, got nan or infinity; replace the values before the evaluation")
    return to_microseconds(timestamps), values


def _first_fall(timestamps: np.ndarray) -> str:
    index = int(np.flatnonzero(~(np.diff(timestamps) > 0))[0])
    return f"{timestamps[index]:g} s followed by {timestamps[index + 1]:g} s"


def detections_at_all_thresholds(frames: FrameScores, class_index: int) -> Detections:
    """Every run of frames of one class with score > threshold, over all thresholds.

    Each frame is the lowest of exactly one longest run, which ends beside the nearest lower frames: the run is born
    when the threshold falls below that frame and dies when it falls below the higher of the two neighbours. Of several
    equal lowest frames of one run, the first stands for it.
    """
    score = np.ascontiguousarray(frames.values[:, class_index])
    rows = np.flatnonzero(np.isfinite(score))
    before = _previous_index(score, rows, frames.longest_file, passes=np.greater)
    is_first_lowest = score[before] < score[rows]
    rows, before = rows[is_first_lowest], before[is_first_lowest]
    last = len(score) - 1
    after = last - _previous_index(score[::-1], last - rows, frames.longest_file, passes=np.greater_equal)
    return Detections(
        onset=frames.onset[before + 1],
        offset=frames.offset[after - 1],
        birth=score[rows],
        death=np.maximum(score[before], score[after]),
    )


def _previous_index(score: np.ndarray, rows: np.ndarray, longest_file: int, passes: np.ufunc) -> np.ndarray:
    """For each of the rows, the nearest index before it whose score does not pass the comparison with the row's.

    Binary descent over block minima: block k at i holds the lowest of the 2^k scores that end at i. The separators of
    -inf stop every search inside its file.
    """
    minima = [score]
    while 2 ** len(minima) <= longest_file:
        half = 2 ** (len(minima) - 1)
        block = minima[-1].copy()
        np.minimum(block[half:], minima[-1][:-half], out=block[half:])
        minima.append(block)
    previous, own = rows - 1, score[rows]
    for level in range(len(minima) - 1, -1, -1):
        previous = previous - (passes(minima[level][previous], own).astype(np.int64) << level)
    return previous
