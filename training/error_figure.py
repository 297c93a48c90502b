"""The figure of `errors.py`: fates of events, segments, errors of borders, recall, each one panel.

Drawn from the numbers alone, without pyplot. Parts of a bar differ in lightness and hatching: grey is enough."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from trust_figures import wilson_interval

from modeling_easysed.palette_easysed import SERIES

DPI = 150
EDGE, DARK, LIGHT, WARM = "0.25", SERIES[0], "#BBD7EC", "#F2C9A8"
# Fate: (words, fill, hatch), from good to bad; events of the truth grow to the right, false detections to the left.
EVENT_STYLES = {
    "right": ("right", DARK, ""),
    "wrong_onset": ("only the onset is wrong", LIGHT, ""),
    "wrong_offset": ("only the offset is wrong", LIGHT, "////"),
    "wrong_both": ("both borders are wrong", LIGHT, "xxxx"),
    "run_together": ("run together with another of its class", LIGHT, "...."),
    "wrong_class": ("another class was detected there", WARM, "\\\\\\\\"),
    "missed": ("missed", "white", ""),
}
FALSE_STYLES = {
    "piece": ("further piece of an event of its class", LIGHT, "||||"),
    "on_other_class": ("lies on an event of another class", SERIES[1] + "A0", "\\\\\\\\"),
    "on_nothing": ("lies on nothing", "0.35", ""),
}
TRAITS = {
    "snr_db": ("level over the background, dB", "{:g}"),
    "duration_s": ("duration, s", "{:g}"),
    "overlap": ("share under other events", "{:.0%}"),
}


def draw_errors(numbers: Mapping[str, Any], path: str | Path) -> None:
    """Writes the PNG.

    Args:
        numbers: as from `errors.measure`.
        path: where to.
    """
    num_classes = len(numbers["classes"])
    figure = Figure(figsize=(13.5, 6.0 + 0.32 * num_classes), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title(numbers), x=0.01, ha="left", fontsize=12)
    rows = figure.subfigures(2, 1, height_ratios=(2.6 + 0.32 * num_classes, 3.2), hspace=0.03)
    fates, segments = rows[0].subplots(1, 2, width_ratios=(2.1, 1), sharey=True)
    borders, recall = rows[1].subplots(1, 2, width_ratios=(1, 1.25))
    draw_fates(fates, numbers["classes"])
    draw_segments(segments, numbers["segments"])
    draw_borders(borders, numbers["borders"])
    draw_recall(recall, numbers["recall"])
    for axes in (fates, segments, borders, recall):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    figure.savefig(path, format="png")


def title(numbers: Mapping[str, Any]) -> str:
    """What was measured, on what."""
    passes = "one pass" if numbers["passes"] == 0 else f"{numbers['passes']} passes"
    shifts = "no shifts" if numbers["shifts"] == 0 else f"{numbers['shifts']} shifts to either side"
    event, segment = numbers["event_f1"], numbers["segment_f1"]
    text = (
        f"Errors of {Path(numbers['model']).name}, exit {numbers['exit']} of {numbers['num_exits']}, {passes}, "
        f"{shifts}, on {numbers['split']} of {Path(numbers['data']).name}: {numbers['num_files']} files, "
        f"{numbers['num_events']} events\nevent-based F1 (200 ms collars): macro {event['macro']:.3f}, "
        f"micro {event['micro']:.3f}; segment-based F1 (1 s): macro {segment['macro']:.3f}, "
        f"micro {segment['micro']:.3f}"
    )
    return text.replace("$", r"\$")  # a dollar sign would start matplotlib's formulas


def draw_fates(axes: Axes, classes: Mapping[str, Mapping[str, Any]]) -> None:
    """One row per class: its events to the right of zero, its detections without an event to the left."""
    for styles, sign in ((EVENT_STYLES, 1), (FALSE_STYLES, -1)):
        start = np.zeros(len(classes))
        for fate, (words, colour, hatch) in styles.items():
            counts = np.array([own[fate] for own in classes.values()])
            look = {"color": colour, "hatch": hatch, "edgecolor": EDGE, "linewidth": 0.6}
            axes.barh(range(len(classes)), sign * counts, 0.72, left=sign * start, label=words, **look)
            start += counts
    axes.set_yticks(range(len(classes)), [label.replace("_", " ").replace("$", r"\$") for label in classes])
    axes.set_ylim(len(classes) - 0.4, -0.6)
    name_sides(axes, "← false detections", "events of the truth →")
    axes.set_title("What becomes of every event, and which detections are false", loc="left", fontsize=11)
    handles, labels = axes.get_legend_handles_labels()
    count = len(EVENT_STYLES)
    options = {"fontsize": 8.5, "frameon": False, "title_fontsize": 9, "alignment": "left", "loc": "upper left"}
    right = axes.legend(
        handles[:count], labels[:count], title="events", ncols=2, bbox_to_anchor=(0.37, -0.14), **options
    )
    axes.add_artist(right)
    axes.legend(handles[count:], labels[count:], title="false detections", bbox_to_anchor=(0.0, -0.14), **options)


def draw_segments(axes: Axes, segments: Mapping[str, Mapping[str, int]]) -> None:
    """False and missed seconds of every class."""
    missed, false = (np.array([own[name] for own in segments.values()]) for name in ("fn", "fp"))
    rows = np.arange(len(segments))
    axes.barh(rows, missed, 0.72, color="white", edgecolor=EDGE, linewidth=0.8)
    axes.barh(rows, -false, 0.72, color="0.35", edgecolor=EDGE, linewidth=0.8)
    axes.tick_params(labelleft=False)
    name_sides(axes, "← falsely active", "missed →")
    axes.set_title("Segments of 1 s that are wrong", loc="left", fontsize=11)


def name_sides(axes: Axes, left: str, right: str) -> None:
    """Counts to both sides of zero, each side with its name below."""
    axes.axvline(0, color="black", linewidth=1)
    axes.use_sticky_edges = False
    axes.margins(x=0.03)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
    axes.grid(axis="x", color="0.92")
    for words, sign, side in ((left, -1, "right"), (right, 1, "left")):
        place = {"xytext": (8 * sign, -22), "textcoords": "offset points", "xycoords": axes.get_xaxis_transform()}
        axes.annotate(words, (0, 0), ha=side, va="top", **place)


def draw_borders(axes: Axes, borders: Mapping[str, Mapping[str, Any]]) -> None:
    """How early or late onsets and offsets are, of all events with a detection of their own."""
    looks = {
        "onset": {"color": LIGHT, "edgecolor": DARK, "linewidth": 1.2, "fill": True},
        "offset": {"color": "black", "linestyle": (0, (3, 1.5)), "linewidth": 1.6},
    }
    for border, own in borders.items():
        quartiles = [own["quantiles_ms"][level] for level in ("0.25", "0.5", "0.75")]
        words = f"{border}: median {quartiles[1]:+.0f} ms, half within {quartiles[0]:+.0f} to {quartiles[2]:+.0f} ms"
        words += f"; {own['num_beyond']} beyond 1 s (outermost bins)"
        axes.stairs(own["counts"], own["edges_ms"], label=words.replace("-", "−"), **looks[border])
    axes.axvspan(-200, 200, color="0.92", zorder=0, label="200 ms collar (long events have a wider one for offsets)")
    axes.set_xlim(-1000, 1000)
    axes.margins(y=0.0)
    axes.set_ylim(0, 1.45 * max(max(own["counts"]) for own in borders.values()) + 0.5)  # room for the legend
    axes.set(
        xlabel="ms that the detection is early (−) or late (+)", ylabel=f"events ({borders['onset']['num']} detected)"
    )
    axes.legend(loc="upper left", frameon=False, fontsize=8.5)
    axes.set_title("Errors of borders", loc="left", fontsize=11)


def draw_recall(axes: Axes, recall: Mapping[str, list[Mapping[str, Any]]]) -> None:
    """Share of events that are right, and heard whatever their borders, by level, duration and overlap."""
    position, ticks, names = 0, [], []
    for trait, (words, form) in TRAITS.items():
        groups = recall[trait]
        if not groups:
            continue
        x = position + np.arange(len(groups))
        total = np.array([group["events"] for group in groups])
        for kind, marker, face in (("heard", "s", "white"), ("right", "o", DARK)):
            count = np.array([group[kind] for group in groups])
            low, high = wilson_interval(count, total)
            axes.vlines(x, low, high, color=DARK, linewidth=1.2)
            label = {"heard": "heard, whatever the borders", "right": "right"}[kind] if position == 0 else None
            line = "--" if kind == "heard" else "-"
            axes.plot(x, count / total, line, marker=marker, color=DARK, markerfacecolor=face, label=label, zorder=3)
        ticks += x.tolist()
        names += [f"{span(group, form, trait)}\n({group['events']})" for group in groups]
        axes.text(x.mean(), -0.23, words, transform=axes.get_xaxis_transform(), ha="center", va="top")
        position += len(groups) + 0.7
    axes.set_xticks(ticks, names, fontsize=8.5)
    axes.set(ylim=(0, 1.05), ylabel="share of events, 90 % interval")
    axes.grid(axis="y", color="0.92")
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="white", fontsize=8.5)
    axes.set_title("Recall (number of events below each group)", loc="left", fontsize=11)


def span(group: Mapping[str, Any], form: str, trait: str) -> str:
    """A group's range in few signs."""
    low, high = group["from"], group["to"]
    if trait == "overlap" and high < 0.01:
        return "none"
    if not np.isfinite(high) or (trait == "overlap" and high > 1):
        return "> " + form.format(low)
    if not np.isfinite(low) or low < 0.01:
        return "< " + form.format(high)
    return f"{form.format(low)}–{form.format(high)}"


__all__ = ["draw_errors"]
