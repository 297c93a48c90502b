"""Inference augmentation: the window shifted by multiples of 30 ms both ways, and its outputs on one time line again.

    shifts=2, frames of 40 ms:  -60  -30   0  +30  +60 ms
    start of the frame grid:     20   10   0   30   20 ms     the shift modulo the frame; equal starts are one view

A network is blind to shifts by whole output frames, so only the place of the grid matters: views with equal starts
would compute the same twice. Every view hears the real signal from its start on; nothing wraps around and nothing is
invented before the file. Its frames lie on the file's own time line, where they are interpolated at every log-mel frame
and averaged: with two shifts or more, four grids interleave and borders are known to 10 ms instead of 40.
"""

import numpy as np

SHIFT_S = 0.03
MAX_SHIFTS = 16


def view_starts(shifts: int, sampling_rate: int, frame_samples: int) -> list[int]:
    """Where the frame grids of all shifts start.

    Args:
        shifts: steps of 30 ms to either side; 0 = the recording as it is.
        sampling_rate: Hz of the samples that the network hears.
        frame_samples: samples of one output frame.

    Returns:
        Different starts in samples, each in 0 .. frame_samples - 1, increasing, the first one 0.

    Raises:
        ValueError: when `shifts` is no whole number from 0 to 16.
    """
    if isinstance(shifts, bool) or not isinstance(shifts, int) or not 0 <= shifts <= MAX_SHIFTS:
        raise ValueError(f"shifts must be a whole number from 0 to {MAX_SHIFTS}, got {shifts!r}; 2 is usual")
    step = SHIFT_S * sampling_rate
    return sorted({round(number * step) % frame_samples for number in range(-shifts, shifts + 1)})


def interpolate_frames(values: np.ndarray, start: int, frame_samples: int, times: np.ndarray) -> np.ndarray:
    """Values of one view at other times, linear between its frames' centres and constant beyond the first and last.

    Args:
        values: (..., frames, classes); frame k is centred at start + k x frame_samples.
        start: of the view's grid, samples.
        frame_samples: samples of one output frame.
        times: (grid,), samples.

    Returns:
        (..., grid, classes).
    """
    position = np.clip((times.astype(np.float64) - start) / frame_samples, 0, values.shape[-2] - 1)
    left = np.floor(position).astype(np.int64)
    right = np.minimum(left + 1, values.shape[-2] - 1)
    weight = (position - left).astype(values.dtype)[:, None]
    # (grid, 1)
    low, between = np.take(values, left, axis=-2), np.take(values, right, axis=-2)
    between -= low
    between *= weight
    between += low
    return between


def average_views(views: dict[int, np.ndarray], frame_samples: int, times: np.ndarray) -> np.ndarray:
    """Mean over views of (..., frames, classes) on one grid of times (grid,), samples: (..., grid, classes)."""
    return sum(interpolate_frames(values, start, frame_samples, times) for start, values in views.items()) / len(views)


def average_lines(
    lines: dict[int, np.ndarray], frame_samples: int, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, entropy and spread of all views on one grid of times, (grid, classes) each.

    Args:
        lines: {start of a view: (3, frames, classes)}: mean, entropy and standard deviation over its samples.
        frame_samples, times: see `interpolate_frames`.

    Returns:
        Means over the views of the first two; the standard deviation inside the views and between them.
    """
    on_grid = [interpolate_frames(line, start, frame_samples, times) for start, line in lines.items()]
    mean, entropy = sum(line[:2] for line in on_grid) / len(lines)
    variance = np.zeros_like(mean)
    for own_mean, _, spread in on_grid:
        variance += spread**2
        variance += (own_mean - mean) ** 2
    return mean, entropy, np.sqrt(variance / len(lines))


__all__ = ["MAX_SHIFTS", "SHIFT_S", "average_lines", "average_views", "interpolate_frames", "view_starts"]
