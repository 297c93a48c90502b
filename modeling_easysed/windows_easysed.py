"""Windows over recordings longer than the network takes at once, and their outputs put together again.

|<------- window 1 ------->|
|                |<-c->|<-c->|             c: context, heard but not kept
                 |<------- window 2 ------->|
|== kept of 1 ======|== kept of 2 ===========|"""

import numpy as np

Window = tuple[int, int]  # first log-mel frame, and the one after the last


def plan_windows(num_frames: int, window_frames: int, context_frames: int, stride: int) -> list[Window]:
    """Windows that cover a file; neighbours overlap by at least twice the context.

    Args:
        num_frames: log-mel frames of the file.
        window_frames, context_frames: multiples of `stride`; the window is longer than twice the context.
        stride: log-mel frames per output frame. Every window starts at a multiple of it.

    Returns:
        (start, stop) in log-mel frames; one window without padding where the file is not longer than a window. All have
        `window_frames` but the last, which is up to stride - 1 shorter.
    """
    if num_frames <= window_frames:
        return [(0, num_frames)]
    last = -(-(num_frames - window_frames) // stride) * stride
    starts = [*range(0, last, window_frames - 2 * context_frames), last]
    return [(start, min(start + window_frames, num_frames)) for start in starts]


def kept_parts(num_frames: list[int], windows: list[Window], context_frames: int, stride: int) -> list[slice]:
    """What is kept of every window's output frames: up to its end less the context.

    So what is kept of a window does not depend on where the recording ends, and a stream can use it at once.

    Args:
        num_frames: output frames of every window.
        windows, context_frames, stride: as for `plan_windows`, and what it returned.
    """
    starts = [start // stride for start, _ in windows]
    cuts = [(stop - context_frames) // stride for _, stop in windows[:-1]]
    limits = zip([0, *cuts], [*cuts, starts[-1] + num_frames[-1]], starts, strict=True)
    return [slice(low - start, high - start) for low, high, start in limits]


def join_windows(pieces: list[np.ndarray], windows: list[Window], context_frames: int, stride: int) -> np.ndarray:
    """Output frames of all windows as one line, see `kept_parts`.

    Args:
        pieces: (..., output frames of the window, classes) per window.
        windows: what `plan_windows` returned.
        context_frames: of the plan, log-mel frames.
        stride: log-mel frames per output frame.

    Returns:
        (..., output frames of the file, classes).
    """
    kept = kept_parts([piece.shape[-2] for piece in pieces], windows, context_frames, stride)
    return np.concatenate([piece[..., part, :] for piece, part in zip(pieces, kept, strict=True)], axis=-2)


__all__ = ["Window", "join_windows", "kept_parts", "plan_windows"]
