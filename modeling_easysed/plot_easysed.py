"""The picture of a detection: waveform, log-mel frames, and a lane for every class that comes near sounding.

    lane:   probability from 0 to 1, within the band of its spread
            bars of its events, by decision: solid, pale and hatched, hollow; whiskers: intervals of their borders

Drawn on a Figure of its own, without pyplot: no screen, no global state."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns_easysed import largest_of
from .palette_easysed import (
    DECISIONS,
    LONG_S,
    SMALL_POINTS,
    TEXT_POINTS,
    TITLE_POINTS,
    Theme,
    duration_text,
    theme_named,
    tidy_label,
    time_ticks,
)

if TYPE_CHECKING:
    from .detection_easysed import Detection, Event

WIDTH_INCHES, DPI = 10.0, 150
WAVE_INCHES, MEL_INCHES, LANE_INCHES = 0.7, 1.5, 0.62
DYNAMIC_RANGE_DB = 70.0
MAX_LANES, NEAR_PROBABILITY = 12, 0.2  # a class comes near sounding when its probability reaches this
MAX_POINTS = 1600  # of a curve: one and a half for every pixel
BAND_DEVIATIONS = 1.645  # to either side: 90 % of the answers where they are normally distributed
FREQUENCY_TICKS_HZ = (250, 1000, 2000, 4000, 8000, 16000)
# A lane from its top, 0, to its bottom, 1: the curve, the bars, the whiskers.
CURVE_TOP, CURVE_BOTTOM, BAR_TOP, BAR_BOTTOM, ONSET_WHISKER, OFFSET_WHISKER = 0.06, 0.57, 0.61, 0.85, 0.895, 0.95
LABEL_CHARACTER_INCHES = 0.066
NARROW_INCHES = 0.04  # six pixels: fill and hatch of a narrower bar cannot be seen
TITLE_CHARACTERS = 72


def plot_detection(
    detection: "Detection", path: str | Path | None = None, theme: str = "light", with_title: bool = True
) -> Any:
    """Draws one detection; see `Detection.plot`.

    Args:
        with_title: whether the recording's name stands above the picture.
        Others as for `Detection.plot`.

    Returns:
        matplotlib Figure.

    Raises:
        ImportError: without matplotlib.
        ValueError: a suffix that matplotlib cannot write, or an unknown theme.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'easysed[plot]'") from error
    colours, (chosen, num_hidden) = theme_named(theme), shown_classes(detection)
    heights = [] if detection.envelope is None else [WAVE_INCHES]
    heights += [] if detection.log_mel is None else [MEL_INCHES]
    heights += [max(1, len(chosen)) * LANE_INCHES]
    size = (WIDTH_INCHES, sum(heights) + (1.35 if with_title else 1.1))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor=colours.background)
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes in panels:
        _dress(axes, colours, detection.duration)
    rest = iter(panels)
    if detection.envelope is not None:
        _draw_wave(next(rest), detection, colours)
    if detection.log_mel is not None:
        _draw_log_mel(next(rest), detection, colours)
    lanes = next(rest)
    _draw_lanes(lanes, detection, chosen, colours)
    _explain(figure, lanes, detection, num_hidden if chosen else None, colours)
    if with_title:
        figure.suptitle(_title(detection), x=0.008, ha="left", fontsize=TITLE_POINTS, color=colours.ink)
    if path is not None:
        figure.savefig(path)
    return figure


def shown_classes(detection: "Detection") -> tuple[list[int], int]:
    """Indices of the classes that get a lane, in the model's order, and how many more would deserve one.

    Classes with events come first, then those that come near sounding; of too many, those with the highest peaks.
    """
    peaks = detection.probabilities.max(axis=0)
    with_events = {event.label for event in detection.events}
    has_events = np.array([label in with_events for label in detection.labels])
    near = np.flatnonzero(has_events | (peaks >= NEAR_PROBABILITY))
    ranked = near[np.lexsort((-peaks[near], ~has_events[near]))]
    return sorted(ranked[:MAX_LANES].tolist()), max(0, len(ranked) - MAX_LANES)


# ---- the panels ------------------------------------------------------------------------------------------------------


def _dress(axes: Any, colours: Theme, duration: float) -> None:
    """What all panels share: no frame, quiet ticks, one time axis."""
    axes.set_facecolor(colours.background)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=colours.muted, labelsize=SMALL_POINTS, length=2, color=colours.line)
    axes.tick_params(axis="x", labelbottom=False)
    axes.set_xlim(0.0, duration)
    axes.set_xticks(*time_ticks(duration))


def _draw_wave(axes: Any, detection: "Detection", colours: Theme) -> None:
    """Lowest to highest sample of every column, scaled to the loudest, whose level is the tick."""
    low, high = detection.envelope.T
    times = (np.arange(len(low)) + 0.5) * detection.duration / len(low)
    axes.fill_between(times, low, high, color=colours.wave, linewidth=0.3)
    peak = max(float(np.abs(detection.envelope).max()), 1e-6)
    axes.set_ylim(-1.05 * peak, 1.05 * peak)
    axes.set_yticks([-peak, peak], [f"-{peak:.2g}", f"{peak:.2g}"])
    axes.set_ylabel("level", fontsize=SMALL_POINTS, color=colours.muted)


def _draw_log_mel(axes: Any, detection: "Detection", colours: Theme) -> None:
    mel = detection.log_mel.T
    # (mels, columns)
    top = float(np.percentile(mel, 99.8))
    span = (0.0, detection.duration, -0.5, len(mel) - 0.5)
    limits = {"vmin": max(top - DYNAMIC_RANGE_DB, float(np.percentile(mel, 1)) - 1.0), "vmax": top}
    axes.imshow(mel, origin="lower", aspect="auto", extent=span, cmap=colours.spectrogram, **limits)
    if detection.mel_hz is None:
        axes.set_ylabel("mel band", fontsize=SMALL_POINTS, color=colours.muted)
        return
    shown = [one for one in FREQUENCY_TICKS_HZ if detection.mel_hz[0] <= one <= detection.mel_hz[-1]]
    axes.set_yticks(np.interp(shown, detection.mel_hz, np.arange(len(mel))), [f"{one / 1000:g}" for one in shown])
    axes.set_ylabel("kHz", fontsize=SMALL_POINTS, color=colours.muted)


def _draw_lanes(axes: Any, detection: "Detection", chosen: list[int], colours: Theme) -> None:
    """All lanes, first class on top."""
    axes.set_ylim(max(1, len(chosen)), 0)
    if not chosen:
        axes.set_yticks([])
        axes.text(0.5, 0.5, _nothing(detection), transform=axes.transAxes, ha="center", va="center", color=colours.ink)
        return
    names = [_plain(tidy_label(detection.labels[index])) for index in chosen]
    axes.set_yticks(np.arange(len(chosen)) + (CURVE_TOP + BAR_BOTTOM) / 2, names)
    axes.tick_params(axis="y", length=0, labelsize=TEXT_POINTS, labelcolor=colours.ink)
    axes.grid(axis="x", color=colours.line, linewidth=0.5)
    axes.set_axisbelow(True)
    times, probabilities, spread = _curves(detection, chosen)
    for lane, index in enumerate(chosen):
        deviation = None if spread is None else spread[:, lane]
        _draw_curve(axes, lane, times, probabilities[:, lane], deviation, colours)
        _draw_events(axes, lane, [one for one in detection.events if one.label == detection.labels[index]], colours)


def _nothing(detection: "Detection") -> str:
    peaks = detection.probabilities.max(axis=0)
    nearest = int(peaks.argmax())
    return _plain(
        f"no class comes near sounding; the nearest, {tidy_label(detection.labels[nearest])}, reaches "
        f"{peaks[nearest]:.2f}"
    )


def _curves(detection: "Detection", chosen: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Times (points,), probabilities and spread (points, chosen), from the recording's start to its end.

    Of too many frames every point is that with the largest probability of its neighbours, so that short events stay.
    """
    step = -(-len(detection.frame_times) // MAX_POINTS)
    given = [detection.probabilities] if detection.spread is None else [detection.probabilities, detection.spread]
    lines = largest_of([one[:, chosen] for one in given], step)
    middles = np.minimum(np.arange(len(lines[0])) * step + (step - 1) / 2, len(detection.frame_times) - 1)
    times = np.interp(middles, np.arange(len(detection.frame_times)), detection.frame_times)
    times = np.concatenate([[0.0], times, [detection.duration]])
    lines = [np.concatenate([one[:1], one, one[-1:]]) for one in lines]
    return times, lines[0], None if len(lines) == 1 else lines[1]


def _draw_curve(
    axes: Any, lane: int, times: np.ndarray, probability: np.ndarray, spread: np.ndarray | None, colours: Theme
) -> None:
    bottom, height = lane + CURVE_BOTTOM, CURVE_BOTTOM - CURVE_TOP
    axes.hlines([bottom, bottom - height], 0.0, times[-1], color=colours.line, linewidth=0.6)
    if spread is not None:
        reach = BAND_DEVIATIONS * spread
        low, high = np.clip(probability - reach, 0.0, 1.0), np.clip(probability + reach, 0.0, 1.0)
        axes.fill_between(times, bottom - height * low, bottom - height * high, color=colours.band, linewidth=0.4)
    axes.plot(times, bottom - height * probability, color=colours.curve, linewidth=0.9)
    for value in (0, 1):
        place = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "left", "fontsize": SMALL_POINTS}
        axes.text(1.004, bottom - height * value, str(value), color=colours.muted, **place)


def _draw_events(axes: Any, lane: int, events: Sequence["Event"], colours: Theme) -> None:
    """Bars, what is written on them, and whiskers; what is too narrow for a bar is a line as high as its decision."""
    duration, height = axes.get_xlim()[1], BAR_BOTTOM - BAR_TOP
    for decision, look in DECISIONS.items():
        own, bottom = colours.decisions[decision], lane + BAR_BOTTOM
        decided = [one for one in events if one.decision == decision]
        spans = [(one.onset, one.offset - one.onset) for one in decided if not _is_narrow(one, duration)]
        if spans:
            fill, place = "none" if own.fill is None else own.fill, (bottom - height, height)
            axes.broken_barh(spans, place, facecolor=fill, edgecolor=own.edge, hatch=look.hatch, linewidth=0.9)
        lines = [(one.onset + one.offset) / 2 for one in decided if _is_narrow(one, duration)]
        if lines:
            axes.vlines(lines, bottom - look.height * height, bottom, color=own.edge, linewidth=1.0)
    for event in events:
        _write_on_bar(axes, lane, event, colours, duration)
    _draw_whiskers(axes, lane + ONSET_WHISKER, [(one.onset_low, one.onset_high) for one in events], colours)
    _draw_whiskers(axes, lane + OFFSET_WHISKER, [(one.offset_low, one.offset_high) for one in events], colours)


def _is_narrow(event: "Event", duration: float) -> bool:
    return (event.offset - event.onset) / duration * WIDTH_INCHES < NARROW_INCHES


def _draw_whiskers(axes: Any, place: float, intervals: list[tuple[float | None, float | None]], colours: Theme) -> None:
    """Those of onsets above those of offsets, because they may overlap; less than ten pixels would be a blot."""
    wide = [one for one in intervals if _is_wide(one, axes.get_xlim()[1])]
    if wide:
        axes.hlines([place] * len(wide), *zip(*wide, strict=True), color=colours.ink, linewidth=0.9)
        ends = [end for one in wide for end in one]
        axes.vlines(ends, place - 0.025, place + 0.025, color=colours.ink, linewidth=0.9)


def _is_wide(interval: tuple[float | None, float | None], duration: float) -> bool:
    low, high = interval
    return low is not None and (high - low) / duration * WIDTH_INCHES > 10 / DPI


def _write_on_bar(axes: Any, lane: int, event: "Event", colours: Theme, duration: float) -> None:
    """Symbol and confidence (else the score) where they fit, else the symbol, else nothing."""
    inches = (event.offset - event.onset) / duration * 0.84 * WIDTH_INCHES
    number, symbol = event.score if event.confidence is None else event.confidence, DECISIONS[event.decision].symbol
    texts = [symbol] if number is None else [f"{symbol} {number:.2f}".strip(), f"{number:.2f}", symbol]
    text = next((one for one in texts if one and inches > LABEL_CHARACTER_INCHES * (len(one) + 1)), None)
    if text is None:
        return
    own = colours.decisions[event.decision]
    # A hatch would run through the figures: they get a plain ground.
    ground = {"facecolor": own.fill, "edgecolor": "none", "pad": 0.8} if event.decision == "review" else None
    middle = ((event.onset + event.offset) / 2, lane + (BAR_TOP + BAR_BOTTOM) / 2)
    axes.text(*middle, text, ha="center", va="center_baseline", color=own.ink, fontsize=SMALL_POINTS, bbox=ground)


# ---- around the panels -----------------------------------------------------------------------------------------------


def _explain(figure: Any, axes: Any, detection: "Detection", num_hidden: int | None, colours: Theme) -> None:
    """The time axis and the legend of what is there; `num_hidden` is None where there are no lanes."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    has_lanes = num_hidden is not None
    unit = "s" if detection.duration <= LONG_S else "h:mm:ss"
    more = f"   ({num_hidden} more classes come near sounding and are not drawn)" if num_hidden else ""
    axes.tick_params(axis="x", labelbottom=True, labelcolor=colours.ink, labelsize=TEXT_POINTS)
    axes.set_xlabel(f"time ({unit}){more}", fontsize=TEXT_POINTS, color=colours.ink)
    handles = []
    if has_lanes:
        handles.append(Line2D([], [], color=colours.curve, linewidth=1.2, label="probability"))
    if has_lanes and detection.spread is not None:
        handles.append(Patch(color=colours.band, label="its spread (±1.64 sd)"))
    is_dense = any(_is_narrow(event, detection.duration) for event in detection.events)
    heights = {"accept": " (narrow: tall)", "review": " (narrow: middle)", "reject": " (narrow: low)"}
    for decision, look in DECISIONS.items():
        count = sum(event.decision == decision for event in detection.events)
        if count > 0:
            own = colours.decisions[decision]
            fill = "none" if own.fill is None else own.fill
            label = f"{look.symbol} {look.word}: {count}{heights.get(decision, '') if is_dense else ''}".strip()
            handles.append(Patch(facecolor=fill, edgecolor=own.edge, hatch=look.hatch, label=label))
    borders = [((one.onset_low, one.onset_high), (one.offset_low, one.offset_high)) for one in detection.events]
    if any(_is_wide(interval, detection.duration) for both in borders for interval in both):
        handles.append(Line2D([], [], color=colours.ink, marker="|", markersize=5, label="border, 90 % interval"))
    if not handles:
        return
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=SMALL_POINTS,
        labelcolor=colours.ink,
    )


def _title(detection: "Detection") -> str:
    name = "array" if detection.file is None else Path(detection.file).name
    if len(name) > TITLE_CHARACTERS:
        name = f"{name[: TITLE_CHARACTERS // 2]}…{name[-TITLE_CHARACTERS // 2 + 1 :]}"
    count, model = len(detection.events), detection.receipt.get("model")
    by = "" if model is None else f"  ·  {Path(model).name}"
    return _plain(f"{name}  ·  {duration_text(detection.duration)}  ·  {count} event{'' if count == 1 else 's'}{by}")


def _plain(text: str) -> str:
    """A dollar sign would start matplotlib's formulas; a line break or what no font holds has no place in a picture."""
    return "".join(one if one.isprintable() else " " for one in text).replace("$", r"\$")


__all__ = ["plot_detection", "shown_classes"]
