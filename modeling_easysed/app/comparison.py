"""The same recording heard by several models and sizes: what each cost, what each found, how far they agree."""

from collections.abc import Sequence
from dataclasses import dataclass

from modeling_easysed.app.analysis import Analysis
from modeling_easysed.app.catalogue import Entry, Exit
from modeling_easysed.cli.report import escaped
from modeling_easysed.detection_easysed import Detection, Event
from modeling_easysed.palette_easysed import DECISIONS, tidy_label, time_ticks

WIDTH, LEFT, RIGHT = 760, 150, 10
BAR_HEIGHT, BAR_STEP, CLASS_GAP = 13, 18, 22
OVERLAP = 0.5  # intersection over union from which two events are the same


@dataclass(frozen=True)
class Run:
    """One of the listeners."""

    entry: Entry
    size: Exit
    analysis: Analysis

    @property
    def title(self) -> str:
        kind = self.entry.title.partition(" (")[0]
        size = {1: "compact", len(self.entry.exits): "large"}.get(self.size.number, "medium")
        return f"{kind} {size}"

    @property
    def events(self) -> list[Event]:
        """Those that are reported: rejected ones are not believed."""
        return [one for one in self.analysis.detection.events if one.decision != "reject"]


def sizes_to_compare(catalogue: dict[str, Entry]) -> list[tuple[Entry, Exit]]:
    """The large and the compact exit of every model."""
    return [(entry, size) for entry in catalogue.values() for size in dict.fromkeys((entry.exits[-1], entry.exits[0]))]


def agreement(first: Sequence[Event], second: Sequence[Event]) -> float | None:
    """Share of the events of both that the other has as well, in [0, 1]; None where neither has any.

    Two events are the same when they have one label and overlap by at least half of what they cover together; each is
    matched once, the largest overlap first.
    """
    if not first and not second:
        return None
    pairs = sorted(
        ((_overlap(a, b), i, j) for i, a in enumerate(first) for j, b in enumerate(second) if a.label == b.label),
        reverse=True,
    )
    used_first, used_second = set(), set()
    for overlap, i, j in pairs:
        if overlap >= OVERLAP and i not in used_first and j not in used_second:
            used_first.add(i)
            used_second.add(j)
    return 2 * len(used_first) / (len(first) + len(second))


def _overlap(a: Event, b: Event) -> float:
    common = min(a.offset, b.offset) - max(a.onset, b.onset)
    return max(0.0, common) / (max(a.offset, b.offset) - min(a.onset, b.onset))


def comparison_data(runs: Sequence[Run]) -> dict[str, list]:
    """The comparison for programs: {"runs": one dict each, "agreement": matrix of shares in [0, 1] or None}."""
    told = [
        {
            "model": run.entry.name,
            "exit": run.size.number,
            "seconds": round(run.analysis.seconds, 4),
            "detection": run.analysis.detection.to_dict(),
        }
        for run in runs
    ]
    return {"runs": told, "agreement": [[agreement(a.events, b.events) for b in runs] for a in runs]}


def comparison_page(runs: Sequence[Run]) -> str:
    """The comparison as HTML."""
    return (
        '<section class="comparison" aria-label="comparison">'
        f'<p class="verdict" role="status">{escaped(_verdict(runs))}</p>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="picture, scrolls sideways">{_timeline(runs)}</div>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="costs">{_costs(runs)}</div>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="agreement">{_agreements(runs)}</div>'
        '<p class="note">Times are of one run each on this computer, reading the file included. Accuracy is that of '
        "the checkpoint's own test, not of this recording: agreement says that models hear alike, not that they are "
        "right.</p></section>"
    )


def _verdict(runs: Sequence[Run]) -> str:
    fastest, slowest = min(runs, key=lambda one: one.analysis.seconds), max(runs, key=lambda one: one.analysis.seconds)
    values = [agreement(a.events, b.events) for i, a in enumerate(runs) for b in runs[i + 1 :]]
    known = [one for one in values if one is not None]
    agree = f"They agree on {100 * sum(known) / len(known):.0f} % of their events on average"
    first, last = (f"{one.title} was {{}} with {one.analysis.seconds:.2f} s" for one in (fastest, slowest))
    return f"{agree if known else 'None hears an event'}; {first.format('fastest')}, {last.format('slowest')}."


# ---- picture ---------------------------------------------------------------------------------------------------------


def _timeline(runs: Sequence[Run]) -> str:
    """Classes from top to bottom, one line for every listener within, time from left to right."""
    detections = [run.analysis.detection for run in runs]
    labels = list(dict.fromkeys(event.label for one in detections for event in one.events))
    if not labels:
        return '<p class="note">None of them hears an event.</p>'
    y, parts = 0, []
    for label in labels:
        y += CLASS_GAP
        parts.append(f'<text class="class-name" x="0" y="{y - 6}">{escaped(tidy_label(label))}</text>')
        for run in runs:
            parts.append(f'<text class="run" x="{LEFT - 8}" y="{y + BAR_HEIGHT - 2}">{escaped(run.title)}</text>')
            parts.append(f'<path class="rule" d="M{LEFT} {y + BAR_HEIGHT}H{WIDTH - RIGHT}"/>')
            own = [event for event in run.analysis.detection.events if event.label == label]
            parts += [_bar(event, run.analysis.detection, y) for event in own]
            y += BAR_STEP
    height = y + 30
    parts.append(_axis(detections[0].duration, y))
    return (
        f'<svg class="timeline" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escaped(_alt(runs))}">{"".join(parts)}</svg>{_legend()}'
    )


def _alt(runs: Sequence[Run]) -> str:
    said = []
    for run in runs:
        events = [f"{tidy_label(e.label)} {e.onset:.1f} to {e.offset:.1f} s" for e in run.events[:8]]
        said.append(f"{run.title}: {', '.join(events) or 'nothing'}")
    return "; ".join(said)


def _across(second: float, duration: float) -> float:
    return LEFT + (WIDTH - RIGHT - LEFT) * second / duration


def _bar(event: Event, detection: Detection, y: int) -> str:
    left, right = (_across(one, detection.duration) for one in (event.onset, event.offset))
    number = event.score if event.confidence is None else event.confidence
    symbol = DECISIONS[event.decision].symbol
    text = f"{symbol} {number:.2f}".strip()
    fits = right - left > 44
    inside = f'<text x="{(left + right) / 2:.1f}" y="{y + BAR_HEIGHT - 3}">{text}</text>' if fits else ""
    return (
        f'<g class="bar {event.decision or "unjudged"}"><title>{escaped(tidy_label(event.label))} {event.onset:.2f} to '
        f'{event.offset:.2f} s, {text}</title><rect x="{left:.1f}" y="{y}" width="{max(2.0, right - left):.1f}" '
        f'height="{BAR_HEIGHT}"/>{inside}</g>'
    )


def _axis(duration: float, y: int) -> str:
    ticks, words = time_ticks(duration)
    return "".join(
        f'<text x="{_across(one, duration):.0f}" y="{y + 16}">{word}</text>'
        for one, word in zip(ticks, words, strict=True)
    )


def _legend() -> str:
    marks = [
        f'<span class="decision {name or "unjudged"}"><span aria-hidden="true">{look.symbol}</span> {look.word}</span> '
        f"{look.meaning}"
        for name, look in DECISIONS.items()
        if name is not None
    ]
    return f'<p class="note legend">{" ".join(f"<span>{one}</span>" for one in marks)}</p>'


# ---- tables ----------------------------------------------------------------------------------------------------------


def _costs(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        decisions = [event.decision for event in run.analysis.detection.events]
        accuracy = "–" if run.size.event_f1 is None else f"{run.size.event_f1:.2f}"
        cells = (
            f"{run.analysis.seconds:.2f} s",
            f"{run.size.parameters / 1e6:.2f} M",
            f"{run.size.macs_per_10_s / 1e9:.2f} G",
            accuracy,
            *(str(decisions.count(name)) for name in ("accept", "review", "reject")),
        )
        inside = "".join(f"<td>{one}</td>" for one in cells)
        rows.append(f'<tr><th scope="row">{escaped(run.title)}, exit {run.size.number}</th>{inside}</tr>')
    names = ("model", "time", "parameters", "MACs / 10 s", "event F1", "accepted", "review", "rejected")
    return _table("what each cost and found", names, rows)


def _agreements(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        cells = []
        for other in runs:
            value = agreement(run.events, other.events)
            cells.append("<td>–</td>" if value is None or other is run else f"<td>{100 * value:.0f} %</td>")
        rows.append(f'<tr><th scope="row">{escaped(run.title)}</th>{"".join(cells)}</tr>')
    return _table("agreement on events that are not rejected", ("", *(run.title for run in runs)), rows)


def _table(caption: str, names: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{escaped(name)}</th>' if name else "<td></td>" for name in names)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


__all__ = ["Run", "agreement", "comparison_data", "comparison_page", "sizes_to_compare"]
