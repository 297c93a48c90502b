"""The card's picture: how often events are right against the probability that was stated, raw score and confidence.

Drawn from the events that the trust report keeps in the results. matplotlib is an extra: without it there is no
picture, and the card has the same figures as a table."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from modeling_easysed.metrics import expected_calibration_error, reliability_bins
from modeling_easysed.palette_easysed import SERIES

FILE_NAME = "reliability.png"
NUM_BINS, DPI = 10, 150
QUANTILE = 1.6448536269514722  # of the normal distribution, for two-sided 90 % intervals
SHIFT = 0.008  # to either side, so that the bars of the two series do not hide each other

Series = dict[str, tuple[np.ndarray, np.ndarray]]  # name: probabilities (events,) and right (events,), 0 or 1


def reliability_series(results: dict[str, Any] | None) -> Series:
    """Raw score of a plain pass above its threshold, and confidence of the default; empty where neither was kept."""
    trust = None if results is None else results.get("trust")
    events = None if trust is None else trust.get("events")
    if events is None:
        return {}
    plain, default = ({key: np.array(one) for key, one in events[name].items()} for name in ("plain", "default"))
    above = plain["above_threshold"] == 1
    series = {
        "raw score": (plain["score"][above], plain["right"][above]),
        "confidence": (default["confidence"], default["right"]),
    }
    return {name: pair for name, pair in series.items() if len(pair[0]) > 0}


def wilson_interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """90 % interval of observed shares (bins,) of `count` (bins,) events.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    square = QUANTILE**2 / count
    middle = (share + square / 2) / (1 + square)
    reach = np.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return middle - reach, middle + reach


def draw_reliability(results: dict[str, Any] | None, path: Path) -> bool:
    """Writes the PNG; False, and no file, where results keep no events or matplotlib is not installed."""
    series = reliability_series(results)
    if not series or find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.8), dpi=DPI, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.45", linewidth=1)
    styles = zip((-SHIFT, SHIFT), ("s", "o"), ("white", SERIES[0]), (SERIES[1], SERIES[0]), strict=True)
    for (name, (probabilities, right)), (shift, marker, face, colour) in zip(series.items(), styles, strict=False):
        bins = reliability_bins(probabilities, right, NUM_BINS, "positive_class")
        filled = bins.count > 0
        x, share, count = bins.confidence[filled] + shift, bins.accuracy[filled], bins.count[filled]
        ece = expected_calibration_error(probabilities, right, variant="positive_class")
        axes.vlines(x, *wilson_interval(share, count), color=colour, linewidth=1.3)
        label = f"{name}: ECE {ece:.3f}, {len(right):,} events"
        axes.plot(x, share, marker, color=colour, markerfacecolor=face, markersize=7, label=label, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="stated probability, mean of the bin", ylabel="observed share right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, format="png", metadata={"Software": None})  # the same bytes again: nothing is sent twice
    return True


__all__ = ["FILE_NAME", "draw_reliability", "reliability_series", "wilson_interval"]
