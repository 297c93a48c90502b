"""All answers of the model to one event, as an inline SVG: one curve per pass, one dot per pass and time shift.

Inline, so that it follows the page's light or dark colours; its text is for eyes, the sentence below it for all."""

import numpy as np

from modeling_easysed.app.analysis import Answers
from modeling_easysed.cli.report import escaped
from modeling_easysed.detection_easysed import Event
from modeling_easysed.palette_easysed import tidy_label, time_ticks

WIDTH, CURVES_HEIGHT, LEFT = 640, 120, 34
DOT_ROW, AXIS_HEIGHT = 12, 22
MAX_POINTS = 160


def spread_picture(event: Event, answers: Answers) -> str:
    """The drawing, and its sentence."""
    dots_top = CURVES_HEIGHT + AXIS_HEIGHT + 26
    rows = sorted(answers.levels)
    height = dots_top + DOT_ROW * len(rows) + AXIS_HEIGHT
    parts = [_curves(event, answers), _dots(event, answers, rows, dots_top)]
    sentence = escaped(_sentence(event, answers))
    return (
        f'<svg class="spread" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{sentence}">{"".join(parts)}</svg>'
        f'<p class="note">{sentence}</p>'
    )


def _sentence(event: Event, answers: Answers) -> str:
    levels = np.concatenate(list(answers.levels.values()))
    many = f"{len(levels)} answers" if len(levels) > 1 else "One answer"
    shifts = f" ({len(next(iter(answers.levels.values())))} for each of {len(answers.levels)} time shifts)"
    shifts = shifts if len(answers.levels) > 1 else ""
    low, high = np.quantile(levels, [0.05, 0.95])
    lie = f"nine of ten lie between {low:.2f} and {high:.2f}" if len(levels) > 1 else f"it is {levels[0]:.2f}"
    return f"{many}{shifts} to “{tidy_label(event.label)}?” inside the event: mean {levels.mean():.2f}, {lie}."


def _curves(event: Event, answers: Answers) -> str:
    """Probability over time around the event."""
    step = -(-len(answers.times) // MAX_POINTS)
    times, curves = answers.times[::step], answers.curves[:, ::step]
    start, stop = float(times[0]), max(float(times[-1]), float(times[0]) + 1e-3)

    def across(second: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * (second - start) / (stop - start)

    places = [across(float(one)) for one in times]
    lines = []
    for curve in curves:
        points = " ".join(
            f"{x:.0f},{8 + (CURVES_HEIGHT - 8) * (1 - y):.1f}" for x, y in zip(places, curve, strict=True)
        )
        lines.append(f'<polyline class="answer" points="{points}"/>')
    left, right = max(across(event.onset), LEFT), min(across(event.offset), WIDTH - 8)
    (_, step_s, *_), (_, word, *_) = time_ticks(stop - start, 7)
    decimals, first = len(word.partition(".")[2]), int(np.ceil(start / step_s))
    marks = [
        f'<text x="{across(number * step_s):.0f}" y="{CURVES_HEIGHT + 16}">{number * step_s:.{decimals}f} s</text>'
        for number in range(first, int(stop / step_s) + 1)
    ]
    return (
        f'<rect class="inside" x="{left:.0f}" y="8" width="{max(1.0, right - left):.0f}" height="{CURVES_HEIGHT - 8}"/>'
        f'<path class="rule" d="M{LEFT} 8H{WIDTH - 8}M{LEFT} {CURVES_HEIGHT}H{WIDTH - 8}"/>'
        f'<text x="{LEFT - 14}" y="12">1</text><text x="{LEFT - 14}" y="{CURVES_HEIGHT + 4}">0</text>'
        f"{''.join(lines)}{''.join(marks)}"
    )


def _dots(event: Event, answers: Answers, rows: list[float], top: int) -> str:
    """Level of every answer on a scale from 0 to 1; one row for every time shift."""

    def across(level: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * level

    bottom = top + DOT_ROW * len(rows)
    parts = [f'<text class="start" x="{LEFT}" y="{top - 8}">level of every answer inside the event</text>']
    if event.confidence_low is not None and event.confidence_high is not None:
        low, high = across(event.confidence_low), across(event.confidence_high)
        parts.append(
            f'<rect class="interval-of-confidence" x="{low:.0f}" y="{top - 3}" width="{max(2.0, high - low):.0f}" '
            f'height="{bottom - top + 3}"/>'
        )
    for number, start in enumerate(rows):
        y = top + DOT_ROW * (number + 0.5)
        for level in answers.levels[start]:
            parts.append(f'<circle class="answer" cx="{across(float(level)):.1f}" cy="{y:.0f}" r="3"/>')
    if event.confidence is not None:
        x = across(event.confidence)
        parts.append(f'<path class="confidence" d="M{x:.0f} {top - 4}V{bottom + 2}"/>')
    parts.append(f'<path class="rule" d="M{LEFT} {bottom + 2}H{WIDTH - 8}"/>')
    scale = (0, 0.25, 0.5, 0.75, 1)
    parts += [f'<text x="{across(one):.0f}" y="{bottom + 17}">{one:g}</text>' for one in scale]
    return "".join(parts)


__all__ = ["spread_picture"]
