"""The picture of a detection: log-mel frames on top, class probabilities as an image, events as labelled bars.

Drawn on a Figure of its own, without pyplot: no screen, no global state."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .detection_easysed import Detection, Event

WIDTH_INCHES, DPI = 10.0, 150
ROW_INCHES = 0.24  # of one class in the probability image and in the event lanes
# Okabe and Ito's colours for colour-blind readers, darker, so that white numbers can be read on them, and four more.
COLOURS = ("#0072B2", "#C44E00", "#00805C", "#B2558A", "#A87400", "#2A86BF", "#7A5195", "#8C6D31", "#5F6B6D", "#B22222")
DYNAMIC_RANGE_DB = 70.0
MAX_CLASSES = 20  # of more, the picture keeps those that come closest to sounding
LABEL_CHARACTER_INCHES = 0.068
WHISKER_DROP = 0.27  # of a bar's height: intervals lie below the number


def plot_detection(detection: "Detection", path: str | Path | None = None) -> Any:
    """Draws one detection; see `Detection.plot`.

    Returns:
        matplotlib Figure.

    Raises:
        ImportError: without matplotlib.
        ValueError: a suffix that matplotlib cannot write.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'easysed[plot]'") from error
    chosen = _shown_classes(detection)
    lanes = [index for index in chosen if any(event.label == detection.labels[index] for event in detection.events)]
    heights = [1.7, max(0.7, ROW_INCHES * len(chosen)), max(0.5, 1.25 * ROW_INCHES * len(lanes))]
    if detection.log_mel is None:
        heights[0] = 0.01
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + 1.3), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    mel_axes, probability_axes, event_axes = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    figure.suptitle(_title(detection), x=0.01, ha="left", fontsize=11)
    _draw_log_mel(mel_axes, detection)
    _draw_probabilities(figure, probability_axes, detection, chosen)
    _draw_events(event_axes, detection, lanes)
    event_axes.set_xlim(0.0, detection.duration)
    event_axes.set_xlabel("time (s)")
    if path is not None:
        figure.savefig(path)
    return figure


def _title(detection: "Detection") -> str:
    name = "array" if detection.file is None else Path(detection.file).name
    count = len(detection.events)
    model = detection.receipt.get("model")
    by = "" if model is None else f"  ·  {Path(model).name}"
    # A dollar sign would start matplotlib's formulas.
    return f"{name}  ·  {detection.duration:.2f} s  ·  {count} event{'' if count == 1 else 's'}{by}".replace("$", r"\$")


def _shown_classes(detection: "Detection") -> list[int]:
    """Indices of the classes that fit on the picture, in the model's order."""
    num_classes = len(detection.labels)
    if num_classes <= MAX_CLASSES:
        return list(range(num_classes))
    peaks = detection.probabilities.max(axis=0)
    return sorted(np.argsort(-peaks)[:MAX_CLASSES].tolist())


def _draw_log_mel(axes: Any, detection: "Detection") -> None:
    if detection.log_mel is None:
        axes.set_axis_off()
        return
    mel = detection.log_mel.T
    # (mels, columns)
    top = float(np.percentile(mel, 99.8))
    span = (0.0, detection.duration, 0.0, float(len(mel)))
    axes.imshow(mel, origin="lower", aspect="auto", extent=span, cmap="magma", vmin=top - DYNAMIC_RANGE_DB, vmax=top)
    axes.set_ylabel("mel band")
    axes.tick_params(labelbottom=False)


def _draw_probabilities(figure: Any, axes: Any, detection: "Detection", chosen: list[int]) -> None:
    """The image (classes, frames), first class on top; every frame reaches half a frame beyond its centre."""
    times = detection.frame_times
    half = (times[1] - times[0]) / 2 if len(times) > 1 else detection.duration / 2
    span = (times[0] - half, times[-1] + half, len(chosen) - 0.5, -0.5)
    image = axes.imshow(
        _thinned(detection.probabilities[:, chosen]).T,
        aspect="auto",
        extent=span,
        cmap="Greys",
        vmin=0.0,
        vmax=1.0,
        interpolation="nearest",
    )
    axes.set_yticks(range(len(chosen)), [_tidy(detection.labels[index]) for index in chosen], fontsize=8)
    axes.set_yticks(np.arange(len(chosen) - 1) + 0.5, minor=True)
    axes.grid(axis="y", which="minor", color="0.88", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.tick_params(labelbottom=False)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=14, fraction=0.03, ticks=[0, 0.5, 1])
    bar.set_label("probability", fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _thinned(probabilities: np.ndarray, max_frames: int = 3000) -> np.ndarray:
    """(frames, classes) with at most `max_frames`, each the maximum of its neighbours, so that short events stay."""
    step = -(-len(probabilities) // max_frames)
    return np.maximum.reduceat(probabilities, np.arange(0, len(probabilities), step), axis=0)


def _draw_events(axes: Any, detection: "Detection", lanes: list[int]) -> None:
    """One lane per class that has events; the bar's label is its confidence, else its score, where it fits.

    Accepted events are solid, those for review pale, rejected ones hollow; whiskers are the borders' intervals.
    """
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(lanes), 1) - 0.4, -0.6)
    if not lanes:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no events", transform=axes.transAxes, ha="center", va="center", color="0.4")
        return
    axes.set_yticks(range(len(lanes)), [_tidy(detection.labels[index]) for index in lanes], fontsize=8)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    lane_of = {detection.labels[index]: (lane, COLOURS[index % len(COLOURS)]) for lane, index in enumerate(lanes)}
    for event in detection.events:
        _draw_event(axes, event, *lane_of[event.label], detection.duration)


def _draw_event(axes: Any, event: "Event", lane: int, colour: str, duration: float) -> None:
    length = event.offset - event.onset
    text = f"{event.score if event.confidence is None else event.confidence:.2f}"
    inches = length / duration * 0.8 * WIDTH_INCHES
    # A white edge parts neighbours; a bar of a hair's width keeps its colour instead, or it would vanish.
    edge = "white" if inches > 0.04 else colour
    fill, ink = {"review": (colour + "59", "black"), "reject": ("none", "black")}.get(event.decision, (colour, "white"))
    edge = colour if event.decision in ("review", "reject") else edge
    axes.barh(lane, length, left=event.onset, height=0.72, color=fill, edgecolor=edge, linewidth=0.8)
    for low, high in ((event.onset_low, event.onset_high), (event.offset_low, event.offset_high)):
        if low is not None:
            axes.hlines(lane + WHISKER_DROP, low, high, color="black", linewidth=1.0)
            ends = lane + WHISKER_DROP - 0.08, lane + WHISKER_DROP + 0.08
            axes.vlines([low, high], *ends, color="black", linewidth=1.0)
    if inches > LABEL_CHARACTER_INCHES * (len(text) + 1):
        middle = (event.onset + event.offset) / 2
        axes.text(middle, lane, text, ha="center", va="center", color=ink, fontsize=8)


def _tidy(label: str) -> str:
    return label.replace("_", " ").replace("$", r"\$")


__all__ = ["plot_detection"]
