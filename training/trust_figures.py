"""Four figures on trust: reliability, risk against coverage, coverage of intervals, accuracy against compute.

Each writes one PNG from plain arrays, without pyplot. Series differ by marker or dashes, so that grey is enough to
read them. Bad values raise a ValueError that names them."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from matplotlib.transforms import Bbox
from PIL import Image

from modeling_easysed.metrics import aurc, expected_calibration_error, reliability_bins
from modeling_easysed.metrics.uncertainty import TIE_DECIMALS
from modeling_easysed.palette_easysed import SERIES

DPI, GREY = 150, "0.45"
RELIABILITY_BINS, ECE_BINS, STATED_LEVEL = 10, 15, 0.9
MIN_KEPT = 20  # the error rate among fewer events is noise, so the drawn curve starts here
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1, 1, 1, 1, 1)))
METHODS = {  # uncertainties of the pipeline: words, marker, colour
    "none": ("one pass", "o", SERIES[8]),
    "exits": ("agreement of the exits", "s", SERIES[0]),
    "moments": ("closed-form moments", "D", SERIES[3]),
    "mc": ("Monte Carlo dropout", "^", SERIES[1]),
}
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))
DISTANCES = (15, 23, 33, 46)  # pixels from a curve to its name; the nearest free place wins


def wilson_interval(right: Any, total: Any, level: float = STATED_LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Low and high border in [0, 1] of the shares right / total, counts of one shape; `level` is the coverage.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    right, total = np.asarray(right, dtype=np.float64), np.asarray(total, dtype=np.float64)
    if right.shape != total.shape or right.size == 0:
        raise ValueError(f"right and total must have one non-empty shape, got {right.shape} and {total.shape}")
    if not (0 < level < 1 and ((total >= 1) & (right >= 0) & (right <= total)).all()):
        raise ValueError(f"need 0 <= right <= total >= 1 and 0 < level < 1, got {right} of {total} and level {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (right + z**2 / 2) / (total + z**2)
    reach = z / (total + z**2) * np.sqrt(right * (total - right) / total + z**2 / 4)
    return np.clip(middle - reach, 0, 1), np.clip(middle + reach, 0, 1)


def risk_coverage(confidence: Any, right: Any) -> tuple[np.ndarray, np.ndarray]:
    """Share kept and error rate among the kept, (events,) each, the most confident first; the rates' mean is the AURC.

    Events of equal confidence have no order: each is expected to hold an equal share of their errors.
    """
    confidence, right = _events((confidence, right), "the curve")
    _, tie = np.unique(np.round(-confidence, TIE_DECIMALS), return_inverse=True)
    size = np.bincount(tie)
    errors = np.repeat(np.bincount(tie, weights=1 - right) / size, size)
    kept = np.arange(1, len(right) + 1)
    return kept / len(right), np.cumsum(errors) / kept


def draw_reliability(groups: Mapping[str, tuple[Any, Any]], path: str | Path) -> None:
    """Observed share right against mean probability in 10 bins, counts below; two groups, before and after.

    A group is (events,) probabilities and (events,) 0 or 1, right or not. Seeds may be pooled; where they share their
    events, the 90 % bars are too short.
    """
    if len(groups) != 2:
        raise ValueError(f"groups must be two, before and after, got {len(groups)}: {list(groups)}")
    figure = _figure(7.2, 5.0)
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3.4, 1))
    for moment, (name, group), (axes, below) in zip(("Before", "After"), groups.items(), panels.T, strict=True):
        probabilities, right = _events(group, name)
        bins = reliability_bins(probabilities, right, RELIABILITY_BINS, "positive_class")
        ece = expected_calibration_error(probabilities, right, ECE_BINS, "positive_class")
        x, share, total = (values[bins.count > 0] for values in (bins.confidence, bins.accuracy, bins.count))
        low, high = wilson_interval(np.rint(share * total), total)  # rint: whole counts again
        _share_axes(axes)
        axes.vlines(x, low, high, color=SERIES[0], linewidth=1.5)
        axes.plot(x, share, "o", color=SERIES[0], markersize=6, clip_on=False, zorder=4)
        axes.set_title(f"{moment}: {name}\nECE {ece:.3f}, {len(right):,} events", loc="left", fontsize=11)
        below.bar(bins.edges[:-1], bins.count, 1 / RELIABILITY_BINS, align="edge", color="0.7", edgecolor="white")
        below.set_xlabel(f"{name}, mean of the bin")
        below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    panels[0, 0].set_ylabel("observed share right, 90 % interval")
    panels[1, 0].set_ylabel("events")
    _save(figure, path)


def draw_risk_coverage(curves: Mapping[str, tuple[Any, Any]], path: str | Path) -> None:
    """Error rate among the kept against share kept; curves are (events,) confidences and (events,) right, 0 or 1."""
    figure = _figure(7.2, 5.0)
    axes, drawn = figure.subplots(), []
    for index, (name, curve) in enumerate(curves.items()):
        confidence, right = _events(curve, name)
        points = np.column_stack(risk_coverage(confidence, right))[min(MIN_KEPT, len(right)) - 1 :]
        colour, dashes = SERIES[index % len(SERIES)], DASHES[index % len(DASHES)]
        label = f"{name}, AURC {aurc(-confidence, 1 - right):.3f}"
        axes.plot(*points.T, color=colour, linestyle=dashes, linewidth=2, label=label)
        drawn.append((name, points, colour))
    axes.set(xlabel="share of events kept, most confident first", ylabel="error rate among the kept events")
    axes.set(xlim=(0, 1), ylim=(0, None))
    _name_curves(figure, axes, drawn)
    _save(figure, path)


def draw_interval_coverage(
    levels: Any, observed: Mapping[str, Any], path: str | Path, bands: Mapping[str, tuple[Any, Any]] | None = None
) -> None:
    """Share of true borders inside their interval against the share that the interval states, 90 % marked.

    Args:
        levels: (n,) increasing, stated shares in [0, 1].
        observed: (n,) shares per name, such as "onset" and "offset".
        bands: (n,) low and (n,) high per name, drawn behind the curve of that name.
    """
    levels, bands = _array(levels, "levels", is_share=True), {} if bands is None else bands
    if (np.diff(levels) <= 0).any() or not observed or not set(bands) <= set(observed):
        raise ValueError(f"levels must increase, bands be of observed names, got {levels}, {[*bands]}, {[*observed]}")
    figure = _figure(5.0, 5.3)
    axes = figure.subplots()
    _share_axes(axes)
    axes.axvline(STATED_LEVEL, color=GREY, linewidth=1, linestyle=DASHES[2], zorder=1)
    axes.text(STATED_LEVEL - 0.015, 0.02, "stated 90 %", color=GREY, fontsize=9, ha="right")
    for index, (name, values) in enumerate(observed.items()):
        share = _array(values, name, len(levels), is_share=True)
        colour, label = SERIES[index % len(SERIES)], name
        if name in bands:
            low, high = (_array(border, f"band of {name}", len(levels), is_share=True) for border in bands[name])
            axes.fill_between(levels, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(levels, np.column_stack([low, high]), color=colour, linewidth=0.5, alpha=0.5)
        if levels[0] <= STATED_LEVEL <= levels[-1] + 1e-9:
            inside = float(np.interp(STATED_LEVEL, levels, share))
            label += f", {100 * inside:.0f} % inside the stated 90 %"
            axes.plot(STATED_LEVEL, inside, "osD^"[index % 4], color=colour, markeredgecolor="white", markersize=8)
        axes.plot(levels, share, color=colour, linestyle=DASHES[index % len(DASHES)], linewidth=2, label=label)
    axes.set(xlabel="stated coverage of the interval", ylabel="observed share of true borders inside")
    figure.legend(loc="outside lower center", frameon=False, handlelength=3.6)
    _save(figure, path)


def draw_accuracy_compute(points: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Event-based F1 against milliseconds; marker by method, filled with time shifts, a line through its exits.

    Args:
        points: dicts with "name" such as "exit 1", "method" (a key of `METHODS`), "shifts" (0 draws an open marker),
            "milliseconds" > 0, "f1" in [0, 1], and "low" and "high" of its interval or None. Other keys are ignored.
    """
    for point in points:
        shares = [point[key] for key in ("f1", "low", "high") if key == "f1" or point.get(key) is not None]
        is_good = 0 < point["milliseconds"] < np.inf and all(0 <= share <= 1 for share in shares)
        if point["method"] not in METHODS or not is_good:
            raise ValueError(f"method must be in {[*METHODS]}, milliseconds > 0, f1 and bar in [0, 1], got {point}")
    figure = _figure(7.2, 5.3)
    axes, drawn = figure.subplots(), []
    for method, (words, marker, colour) in METHODS.items():
        for shifts in sorted({point["shifts"] for point in points if point["method"] == method}):
            series = [point for point in points if (point["method"], point["shifts"]) == (method, shifts)]
            series.sort(key=lambda point: point["milliseconds"])
            curve = np.array([(point["milliseconds"], point["f1"]) for point in series])
            face, dashes, label = (colour, "-", f"{shifts} shifts") if shifts else ("white", DASHES[1], "no shifts")
            style = {"marker": marker, "markersize": 7.5, "markerfacecolor": face, "linestyle": dashes, "zorder": 3}
            axes.plot(*curve.T, color=colour, label=f"{words}, {label}", **style)
            drawn += [(point["name"], place[None], colour) for point, place in zip(series, curve, strict=True)]
            bars = [(point["milliseconds"], [point.get("low"), point.get("high")]) for point in series]
            for x, bar in (pair for pair in bars if None not in pair[1]):
                axes.plot([x, x], bar, color=colour, linewidth=1.2, zorder=2)
    axes.set(xscale="log", xlabel="milliseconds per recording, logarithmic", ylabel="event-based F1")
    axes.margins(0.1)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 8 * low else MaxNLocator(6))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    _name_curves(figure, axes, drawn)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    return FigureCanvasAgg(Figure(figsize=(width, height), dpi=DPI, layout="constrained")).figure


def _save(figure: Figure, path: str | Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(color="0.92")
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    image.quantize(256).save(path, "PNG", optimize=True)  # a palette takes half the bytes and looks the same


def _share_axes(axes: Axes) -> None:
    """Shares against shares, and the diagonal on which both agree."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, zorder=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))


def _name_curves(figure: Figure, axes: Axes, curves: list[tuple[str, np.ndarray, str]]) -> None:
    """The legend, and each name beside its curve or point (n, 2), if there is a place without a line in the way."""
    if not curves:
        raise ValueError("nothing to draw, got no curve and no point; give at least one")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=3.6)
    figure.draw_without_rendering()  # fixes the pixels of the data
    lines, boxes, frame = [], [], axes.get_window_extent().padded(-4)
    for line in axes.lines:
        pixels = axes.transData.transform(line.get_xydata())
        steps = np.linspace(0, len(pixels) - 1, 600)  # so close that no name fits between two
        lines.append(np.column_stack([np.interp(steps, np.arange(len(pixels)), column) for column in pixels.T]))
    obstacles, colours = np.concatenate(lines), np.repeat([line.get_color() for line in axes.lines], 600)
    for name, points, colour in curves:
        text = axes.text(*points[0], name, color=colour, fontsize=10, ha="center", va="center")
        size = text.get_window_extent().size
        others = obstacles[(colours != colour) & (len(points) > 1)]  # a name stands clearly nearer to its own curve
        order = np.argsort(np.abs(np.arange(len(points)) - len(points) // 2), kind="stable")[:: len(points) // 50 + 1]
        for distance, place, way in product(DISTANCES, axes.transData.transform(points[order]), np.array(DIRECTIONS)):
            middle = place + distance * way + np.sign(way) * size / 2
            box = Bbox([middle - size / 2, middle + size / 2])
            num_hits = box.padded(8).count_contains(obstacles) + box.padded(8).count_overlaps(boxes)
            num_hits += box.padded(1.4 * distance).count_contains(others)
            if num_hits == 0 and frame.count_contains(box.get_points()) == 2:
                text.set_position(axes.transData.inverted().transform(middle))
                boxes.append(box)
                break
        else:
            text.remove()


def _events(pair: tuple[Any, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and whether right, 0 or 1, (events,) each."""
    confidence = _array(pair[0], f"confidence of {name}")
    right = _array(pair[1], f"right of {name}", len(confidence), is_share=True)
    if not np.isin(right, (0, 1)).all():
        raise ValueError(f"right of {name} must be 0 or 1, got other values; compare events with the truth first")
    return confidence, right


def _array(values: Any, name: str, length: int | None = None, is_share: bool = False) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or (length is not None and len(array) != length):
        raise ValueError(f"{name} must be (n,), n {'>= 1' if length is None else f'= {length}'}, got {array.shape}")
    if not np.isfinite(array).all() or (is_share and not ((array >= 0) & (array <= 1)).all()):
        rule = "in [0, 1]" if is_share else "finite"
        raise ValueError(f"{name} must be {rule}, got {array.min()} to {array.max()}; leave out what is not known")
    return array
