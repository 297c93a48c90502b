"""Decoding: frame probabilities to events.

"boxes" (the default) fixes candidate events by the change points of a class's probabilities and gives each one score;
the threshold then selects among them and moves no border. What lies between two silences of a class depends on nothing
beyond them, so that a stream can be decoded silence by silence. "threshold" is the plain alternative: median filter,
hysteresis, gaps closed, short events dropped. Parameters are per class, in a dict that config.json can hold:

    {"method": "boxes", "default": {"filter_s": 0.28, ...}, "classes": {"0": {"threshold": 0.6}, ...}}

Source of the boxes' idea: Ebbers et al., Sound Event Bounding Boxes, Interspeech 2024 (arXiv 2406.04212), section 3.
"""

import math
from typing import Any, NamedTuple

import numpy as np

# Parameter: (default, smallest, largest legal value), by method; times in seconds, the rest probabilities or ratios.
# The defaults were measured with networks trained on soundscapes mixed from ESC-10.
PARAMETERS: dict[str, dict[str, tuple[float, float, float]]] = {
    "boxes": {
        "filter_s": (0.28, 0.0, 10.0),  # each half of the step filter that finds change points
        "absolute_limit": (0.05, 0.0, 1.0),  # neighbours are joined when the dip is less than this below their level
        "relative_limit": (8.0, 1.0, math.inf),  # or when their level is less than so many times the dip's
        "edge_level": (0.3, 0.0, 0.95),  # an event begins and ends at this share of its level
        "score_quantile": (0.75, 0.0, 1.0),  # the score is this quantile of the probabilities inside
        "min_duration_s": (0.08, 0.0, math.inf),  # shorter events are dropped
        "threshold": (0.5, 0.0, 1.0),  # scores above it are events
    },
    "threshold": {
        "median_s": (0.44, 0.0, 10.0),  # length of the median filter
        "low_ratio": (0.5, 0.0, 1.0),  # an event goes on while above this share of the threshold
        "max_gap_s": (0.2, 0.0, math.inf),  # gaps up to this long are closed
        "min_duration_s": (0.08, 0.0, math.inf),  # shorter events are dropped
        "threshold": (0.5, 0.0, 1.0),  # an event must rise above it somewhere
    },
}
DEFAULT_METHOD = "boxes"
SILENT_KEYS = ("id", "tuned_on")  # provenance that decoding itself does not read
SMALLEST_STEP = 1e-9  # below this a step of the filtered probabilities is rounding, not a change point
QUIET_LEVEL, QUIET_S = 0.02, 1.0  # a class that stays below this level for so long is silent: no event spans that


class Box(NamedTuple):
    """One event: onset and offset in seconds, the class's index, and the score in [0, 1] that a threshold acts on."""

    onset: float
    offset: float
    class_index: int
    score: float


def decode(probabilities: np.ndarray, borders: np.ndarray, decoding: dict[str, Any] | None = None) -> list[Box]:
    """Events of one recording: the candidate boxes whose score is above their class's threshold.

    Args:
        probabilities: (frames, classes) in [0, 1].
        borders: (frames + 1,) seconds, increasing; frame k covers borders[k] to borders[k + 1].
        decoding: parameters of one exit (see the module's head and `decoding_for_exit`); None = defaults.

    Returns:
        Events sorted by onset. Those of one class do not overlap; all lie within borders[0] and borders[-1].

    Raises:
        ValueError: when the shapes do not fit, a probability is no number in [0, 1], or a parameter breaks its rule.
    """
    num_classes = np.shape(probabilities)[-1] if np.ndim(probabilities) == 2 else 0
    thresholds = class_parameters(decoding, num_classes)["threshold"]
    boxes = candidate_boxes(probabilities, borders, decoding)
    return [box for box in boxes if box.score > thresholds[box.class_index]]


def candidate_boxes(
    probabilities: np.ndarray, borders: np.ndarray, decoding: dict[str, Any] | None = None
) -> list[Box]:
    """All candidates of one recording with their scores, before the final threshold: what PSDS is computed from.

    With the method "threshold" the borders depend on the threshold, so there the candidates are its events.

    Args, Returns and Raises as for `decode`.
    """
    probabilities, borders = _check_scores(probabilities, borders)
    num_classes = probabilities.shape[1]
    if probabilities.size == 0:
        return []
    parameters = class_parameters(decoding, num_classes)
    frame_duration_s = float(np.median(np.diff(borders)))
    find = _threshold_events if _method_of(decoding) == "threshold" else _change_point_boxes
    classes, onsets, offsets, scores = find(probabilities, parameters, frame_duration_s)
    onsets_s, offsets_s = borders[onsets], borders[offsets]
    # half a microsecond: an event of exactly the shortest duration stays, whatever the borders' rounding
    long_enough = offsets_s - onsets_s >= parameters["min_duration_s"][classes] - 5e-7
    columns = (onsets_s, offsets_s, classes, np.clip(scores, 0.0, 1.0))
    rows = zip(*(column[long_enough].tolist() for column in columns), strict=True)
    return sorted(Box(*row) for row in rows)


def decoding_for_exit(config_decoding: dict[str, Any] | None, exit_index: int) -> dict[str, Any] | None:
    """The parameters of one exit out of what a checkpoint's config holds.

    Args:
        config_decoding: `config.decoding`: either one dict for all exits, or one with
            {"exits": {"1": {"default": {...}, "classes": {...}}, ...}} besides "method" and "id".
        exit_index: 1 = shallowest.

    Returns:
        The dict that `decode` takes. An exit that was not tuned gets what stands outside "exits"; None stays None.
    """
    if config_decoding is None or "exits" not in config_decoding:
        return config_decoding
    common = {key: value for key, value in config_decoding.items() if key != "exits"}
    return {**common, **config_decoding["exits"].get(str(exit_index), {})}


def frame_borders(num_frames: int, frame_duration_s: float, duration_s: float) -> np.ndarray:
    """Borders (num_frames + 1,) in seconds of frames centred at k x frame_duration_s, from 0 to the file's end.

    The first frame is cut at 0; the last one ends with the file, up to one frame after its centre.

    Raises:
        ValueError: when so many frames do not come from a file of that duration.
    """
    past_last_centre = duration_s / frame_duration_s - (num_frames - 1)
    if num_frames < 1 or duration_s <= 0 or not -0.45 < past_last_centre < 1.45:  # 1 at most, and rounding
        raise ValueError(
            f"{num_frames} frames of {frame_duration_s} s cannot come from a file of duration_s={duration_s}: give "
            f"the duration of the samples that were analysed"
        )
    borders = (np.arange(num_frames + 1) - 0.5) * frame_duration_s
    borders[0], borders[-1] = 0.0, duration_s
    return borders


# ---- parameters ------------------------------------------------------------------------------------------------------


def class_parameters(decoding: dict[str, Any] | None, num_classes: int) -> dict[str, np.ndarray]:
    """Every parameter of the method as an array (classes,): the class's own, else the dict's default, else ours.

    Raises:
        ValueError: for a key, method, class or parameter that does not exist, or a value outside its range.
    """
    decoding = {} if decoding is None else decoding
    allowed = ("method", "default", "classes", *SILENT_KEYS)
    unknown = [key for key in decoding if key not in allowed]
    if unknown:
        raise ValueError(
            f"decoding may hold {', '.join(allowed)}, got {unknown}: pick one exit of a config with decoding_for_exit"
        )
    method = _method_of(decoding)
    default = _check_parameters(decoding.get("default", {}), method, "default")
    arrays = {}
    for name, (value, *_) in PARAMETERS[method].items():
        arrays[name] = np.full(num_classes, default.get(name, value), dtype=np.float64)
    for key, own in decoding.get("classes", {}).items():
        if not (str(key).isdecimal() and int(key) < num_classes):
            raise ValueError(f"decoding['classes'] must be keyed by class indices 0 to {num_classes - 1}, got {key!r}")
        for name, value in _check_parameters(own, method, f"class {key}").items():
            arrays[name][int(key)] = value
    return arrays


def shortest_silence_s(decoding: dict[str, Any] | None, num_classes: int) -> np.ndarray:
    """Seconds (classes,) for which a class must stay below `QUIET_LEVEL`, so that nothing is seen across.

    With "threshold" that is so where an event goes on only above that level.
    """
    parameters = class_parameters(decoding, num_classes)
    names = [name for name in ("filter_s", "median_s", "max_gap_s") if name in parameters]
    return np.maximum(QUIET_S, sum(parameters[name] for name in names))


def _method_of(decoding: dict[str, Any] | None) -> str:
    method = DEFAULT_METHOD if decoding is None else decoding.get("method", DEFAULT_METHOD)
    if method not in PARAMETERS:
        raise ValueError(f"decoding method must be one of {tuple(PARAMETERS)}, got {method!r}")
    return method


def _check_parameters(parameters: dict[str, float], method: str, where: str) -> dict[str, float]:
    for name, value in parameters.items():
        if name not in PARAMETERS[method]:
            raise ValueError(
                f"decoding parameter of {where} must be one of {tuple(PARAMETERS[method])} for the method "
                f"{method!r}, got {name!r}"
            )
        _, smallest, largest = PARAMETERS[method][name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not smallest <= value <= largest:
            raise ValueError(f"decoding {name} of {where} must be in [{smallest}, {largest}], got {value!r}")
    return parameters


def _check_scores(probabilities: np.ndarray, borders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    borders = np.asarray(borders, dtype=np.float64)
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must have shape (frames, classes), got {probabilities.shape}")
    if borders.shape != (len(probabilities) + 1,):
        raise ValueError(
            f"borders must have shape (frames + 1,) = ({len(probabilities) + 1},), got {borders.shape}: "
            f"frame k covers borders[k] to borders[k + 1]"
        )
    if not (np.isfinite(borders).all() and (np.diff(borders) > 0).all()):
        raise ValueError("borders must be finite and increasing seconds; clip them to the file and drop empty frames")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # also false for NaN
        raise ValueError("probabilities must be in [0, 1], got NaN or values outside: apply a sigmoid to logits first")
    return probabilities, borders


# ---- boxes -----------------------------------------------------------------------------------------------------------
# All classes are handled in one go: boxes stand in flat arrays sorted by class, then by time. Borders are counted in
# frames: a box of frames 3 and 4 has onset 3 and offset 5.

Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # class, onset, offset, score


class _Spans(NamedTuple):
    """Boxes without scores, each column (boxes,)."""

    label: np.ndarray
    onset: np.ndarray
    offset: np.ndarray


def _change_point_boxes(probabilities: np.ndarray, parameters: dict[str, np.ndarray], frame_duration_s: float) -> Found:
    filter_frames = np.maximum(1, np.round(parameters["filter_s"] / frame_duration_s)).astype(np.int64)
    quiet = quiet_frames(probabilities, frame_duration_s, np.maximum(QUIET_S, parameters["filter_s"]))
    audible = np.flatnonzero(~quiet.all(axis=0))  # a few of many classes; in the others nothing is found
    quiet, filter_frames = quiet[:, audible], filter_frames[audible]
    parameters = {name: own[audible] for name, own in parameters.items()}
    values = np.ascontiguousarray(np.where(quiet, 0.0, probabilities[:, audible]).T)
    # (classes, frames)
    cumulative = _cumulate(values)
    spans = _rises_to_falls(_step_filter(cumulative, filter_frames))
    spans = _join(spans, cumulative, quiet, parameters["absolute_limit"], parameters["relative_limit"])
    if len(spans.label) == 0:
        return *spans, np.zeros(0)
    spans = _move_borders(spans, values, quiet.T, parameters["edge_level"][spans.label] * _level(values, spans))
    scores = _quantile_inside(values, spans, parameters["score_quantile"][spans.label])
    return audible[spans.label], spans.onset, spans.offset, scores


def quiet_frames(probabilities: np.ndarray, frame_duration_s: float, silence_s: np.ndarray) -> np.ndarray:
    """(frames, classes), whether a frame belongs to a silence of the class, as every frame outside the file does.

    Args:
        probabilities: (frames, classes).
        frame_duration_s: seconds of one frame.
        silence_s: (classes,) shortest silence, see `shortest_silence_s`.
    """
    num_frames, num_classes = probabilities.shape
    is_quiet = np.zeros((num_frames + 2, num_classes), dtype=np.int8)
    is_quiet[1:-1] = probabilities < QUIET_LEVEL
    changes = np.diff(is_quiet, axis=0).T
    # (classes, frames + 1)
    label, start = np.nonzero(changes == 1)
    _, stop = np.nonzero(changes == -1)
    needed = np.ceil(silence_s / frame_duration_s - 1e-6)
    is_silence = stop - start >= needed[label]
    marks = np.zeros((num_classes, num_frames + 1), dtype=np.int8)
    marks[label[is_silence], start[is_silence]] = 1
    marks[label[is_silence], stop[is_silence]] = -1
    return np.cumsum(marks, axis=1, dtype=np.int8)[:, :-1].T == 1


def _cumulate(values: np.ndarray) -> np.ndarray:
    """(classes, frames) to sums of the frames before each border, (classes, frames + 1)."""
    cumulative = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=cumulative[:, 1:])
    return cumulative


def _step_filter(cumulative: np.ndarray, filter_frames: np.ndarray) -> np.ndarray:
    """(classes, frames + 1): mean of the `filter_frames` after a border less the mean of as many before it.

    Outside the file the probabilities count as 0, so that an event cut by the file's end has its border there.
    """
    last = cumulative.shape[1] - 1
    border = np.arange(last + 1)[None, :]
    reach = filter_frames[:, None]
    after = np.take_along_axis(cumulative, np.minimum(border + reach, last), axis=1)
    before = np.take_along_axis(cumulative, np.maximum(border - reach, 0), axis=1)
    return (after - 2 * cumulative + before) / reach


def _rises_to_falls(steps: np.ndarray) -> _Spans:
    """Candidates from a rise (local maximum above 0) to the fall (local minimum below 0) that follows it.

    Of rises in a row, and of falls in a row, the steepest counts.
    """
    padded = np.zeros((steps.shape[0], steps.shape[1] + 2))
    padded[:, 1:-1] = steps
    left, right = padded[:, :-2], padded[:, 2:]
    rises = (steps > left) & (steps >= right) & (steps > SMALLEST_STEP)
    falls = (steps <= left) & (steps < right) & (steps < -SMALLEST_STEP)
    label, border = np.nonzero(rises | falls)
    if len(label) == 0:
        return _Spans(label, border, border)
    is_rise = rises[label, border]
    run = np.concatenate([[0], np.cumsum((np.diff(label) != 0) | (np.diff(is_rise.astype(np.int8)) != 0))])
    by_steepness = np.lexsort((-np.abs(steps[label, border]), run))
    steepest = by_steepness[np.unique(run, return_index=True)[1]]
    label, border, is_rise = label[steepest], border[steepest], is_rise[steepest]
    first = np.flatnonzero(is_rise[:-1] & ~is_rise[1:] & (label[:-1] == label[1:]))
    return _Spans(label[first], border[first], border[first + 1])


def _join(
    spans: _Spans, cumulative: np.ndarray, quiet: np.ndarray, absolute_limit: np.ndarray, relative_limit: np.ndarray
) -> _Spans:
    """Joins neighbours while the dip between them is small against the higher of the two and no silence lies there.

    Levels are means over frames. A dip is small when it lies less than `absolute_limit` below the higher level, or when
    that level is less than `relative_limit` times the dip's. The higher one counts: against the lower one, every ripple
    of the background beside an event would be joined to it.
    """
    silences = _cumulate(quiet.T)
    while len(spans.label) > 1:
        level = _mean_inside(cumulative, spans)
        gaps = _Spans(spans.label[:-1], spans.offset[:-1], spans.onset[1:])
        dip = _mean_inside(cumulative, gaps)
        higher = np.maximum(level[:-1], level[1:])
        is_small = (higher - dip < absolute_limit[gaps.label]) | (higher < relative_limit[gaps.label] * dip)
        is_silent = silences[gaps.label, gaps.onset] != silences[gaps.label, gaps.offset]
        split = ~is_small | is_silent | (spans.label[1:] != gaps.label)
        if split.all():
            break
        begins, ends = np.append(True, split), np.append(split, True)
        spans = _Spans(spans.label[begins], spans.onset[begins], spans.offset[ends])
    return spans


def _mean_inside(cumulative: np.ndarray, spans: _Spans) -> np.ndarray:
    total = cumulative[spans.label, spans.offset] - cumulative[spans.label, spans.onset]
    return total / np.maximum(spans.offset - spans.onset, 1)  # from one class's last box to the next class: no gap


def _level(values: np.ndarray, spans: _Spans) -> np.ndarray:
    """Level (boxes,) of each box, sum p^2 / sum p: a mean in which faint outskirts hardly count."""
    box, frame = _frames_of(spans.onset, spans.offset)
    inside = values[spans.label[box], frame]
    return np.bincount(box, inside**2) / np.maximum(np.bincount(box, inside), SMALLEST_STEP)


def _move_borders(spans: _Spans, values: np.ndarray, quiet: np.ndarray, edge_level: np.ndarray) -> _Spans:
    """Moves every border to where the probability crosses the box's `edge_level` (boxes,).

    Inwards past the frames below the level; where there are none, outwards as long as the frames are above it, at most
    up to the neighbours of the same class or to a silence.
    """
    label, onset, offset = spans
    box, frame = _frames_of(onset, offset)
    is_above = values[label[box], frame] >= edge_level[box]
    inner_onset, inner_offset = offset.copy(), onset.copy()
    np.minimum.at(inner_onset, box[is_above], frame[is_above])
    np.maximum.at(inner_offset, box[is_above], frame[is_above] + 1)

    is_last = np.append(label[1:] != label[:-1], True)
    limit = np.where(is_last, values.shape[1], np.roll(inner_onset, -1))
    box, frame = _frames_of(offset, limit)
    is_below = (values[label[box], frame] < edge_level[box]) | quiet[label[box], frame]
    outer_offset = np.maximum(limit, offset)
    np.minimum.at(outer_offset, box[is_below], frame[is_below])
    new_offset = np.where(inner_offset == offset, outer_offset, inner_offset)

    is_first = np.append(True, label[1:] != label[:-1])
    limit = np.where(is_first, 0, np.roll(new_offset, 1))
    box, frame = _frames_of(limit, onset)
    is_below = (values[label[box], frame] < edge_level[box]) | quiet[label[box], frame]
    outer_onset = limit.copy()
    np.maximum.at(outer_onset, box[is_below], frame[is_below] + 1)
    return _Spans(label, np.where(inner_onset == onset, outer_onset, inner_onset), new_offset)


def _frames_of(start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames start .. stop - 1 of every box, flat: index of the box, and frame."""
    length = np.maximum(stop - start, 0)
    box = np.repeat(np.arange(len(start)), length)
    return box, np.arange(len(box)) - np.repeat(np.cumsum(length) - length - start, length)


def _quantile_inside(values: np.ndarray, spans: _Spans, quantile: np.ndarray) -> np.ndarray:
    """Quantile (boxes,) of the probabilities of each box's frames, with linear interpolation."""
    box, frame = _frames_of(spans.onset, spans.offset)
    inside = values[spans.label[box], frame]
    inside = inside[np.lexsort((inside, box))]
    length = spans.offset - spans.onset
    first = np.cumsum(length) - length
    position = quantile * (length - 1)
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, length - 1)
    return inside[first + lower] + (position - lower) * (inside[first + upper] - inside[first + lower])


# ---- threshold, median filter and hysteresis -------------------------------------------------------------------------


def _threshold_events(probabilities: np.ndarray, parameters: dict[str, np.ndarray], frame_duration_s: float) -> Found:
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for index in range(probabilities.shape[1]):
        own = {name: values[index] for name, values in parameters.items()}
        smooth = _median_filter(probabilities[:, index], own["median_s"] / frame_duration_s)
        onset, offset = _hysteresis(smooth, own["threshold"], own["low_ratio"] * own["threshold"])
        is_gap = onset[1:] - offset[:-1] > own["max_gap_s"] / frame_duration_s + 1e-6
        if len(onset) > 0:
            onset, offset = onset[np.append(True, is_gap)], offset[np.append(is_gap, True)]
        score = _max_inside(smooth, onset, offset)
        for column, values in zip(columns, (np.full(len(onset), index), onset, offset, score), strict=True):
            column.append(values)
    classes, onsets, offsets, scores = (np.concatenate(column) for column in columns)
    return classes, onsets, offsets, scores


def _max_inside(values: np.ndarray, onset: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Largest value of frames onset .. offset - 1 per event: above the threshold for every event of `_hysteresis`."""
    if len(onset) == 0:
        return np.zeros(0)
    limits = np.stack([onset, offset], axis=1).ravel()
    return np.maximum.reduceat(np.append(values, 0.0), limits)[::2]


def _median_filter(values: np.ndarray, num_frames: float) -> np.ndarray:
    """Running median over an odd number of frames, the file's first and last value repeated beyond it."""
    half = int(round(num_frames)) // 2
    if half == 0:
        return values
    padded = np.pad(values, half, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=-1)


def _hysteresis(values: np.ndarray, high: float, low: float) -> tuple[np.ndarray, np.ndarray]:
    """Runs above `low` that somewhere exceed `high`: first frames, and frames after the last."""
    changes = np.diff(np.concatenate([[0], (values > low).astype(np.int64), [0]]))
    onset, offset = np.flatnonzero(changes > 0), np.flatnonzero(changes < 0)
    exceeds = np.append(0, np.cumsum(values > high))
    is_event = exceeds[offset] > exceeds[onset]
    return onset[is_event], offset[is_event]
