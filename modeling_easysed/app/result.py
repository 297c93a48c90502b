"""The result as HTML with everything inside: picture, sound, table, one panel per event, downloads.

Nothing of it is a file on the server, so there is nothing that another visitor could reach. Built of the same parts as
the report of `easysed detect --report`."""

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

from modeling_easysed.app.analysis import Analysis
from modeling_easysed.app.catalogue import Entry
from modeling_easysed.app.spread_picture import spread_picture
from modeling_easysed.cli.report import escaped
from modeling_easysed.cli.report_part import (
    as_data,
    choose_stretches,
    cut_sound,
    draw_picture,
    event_doubt,
    sounds_of,
    table_of,
)
from modeling_easysed.detection_easysed import Detection, Event
from modeling_easysed.formats.files import WRITERS
from modeling_easysed.formats.names import BINARY_FORMATS, SUFFIXES
from modeling_easysed.palette_easysed import DECISIONS, duration_text, tidy_label, time_text

MAX_PANELS = 60  # of the most doubtful events; each is some 20 kB
COUNTED = {"accept": "accepted", "review": "for review", "reject": "rejected", None: "not judged"}
MEDIA_TYPES = {"json": "application/json", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
HINT = "Choose an event to hear it, and to see why it was decided so."
BECAUSE = {  # filled by `str.format`, here and by the page on a device
    "sure": "Of events like this one, {many} in 100 were right",
    "interval": " (90 % interval: {low:.0f} to {high:.0f})",
    "decided": {
        "accept": "That is enough for the goal: nobody needs to listen to it again.",
        "review": "That is not enough for the goal, but too much to drop it: a person should listen.",
        "reject": "That is too little: it is not believed.",
    },
    "against": "What speaks against it:",
    "unjudged": "The model's own score is {score:.2f}. Without a calibration nothing is decided.",
}
NO_EVENTS = (
    "No events: nothing in this recording comes near the classes that the model knows, or not long or clearly enough. "
    "That is an answer, not a failure; the picture shows how near each class came."
)


def result_page(analysis: Analysis, entry: Entry, path: Path) -> str:
    """The result of one recording.

    Args:
        analysis: of it.
        entry: the model.
        path: the recording, whose sound is embedded.
    """
    detection = analysis.detection
    stretches = choose_stretches(detection.events, detection.duration)
    table = table_of(detection, stretches) if detection.events else f'<p class="note">{NO_EVENTS}</p>'
    hint = f'<p class="note">{HINT}</p>' if detection.events else ""
    return "".join(
        [
            '<section class="recording" aria-label="result">',
            f'<p class="verdict" role="status">{escaped(_verdict(analysis, entry))}</p>',
            _warnings(detection),
            picture(detection),
            sounds_of(cut_sound(path, stretches), stretches, detection),
            hint,
            table,
            "".join(_panels(analysis)),
            _rule(detection),
            _downloads(detection),
            "</section>",
        ]
    )


def _verdict(analysis: Analysis, entry: Entry) -> str:
    detection = analysis.detection
    decisions = [event.decision for event in detection.events]
    counts = [f"{decisions.count(name)} {word}" for name, word in COUNTED.items() if name in decisions]
    num = len(decisions)
    events = "no events" if num == 0 else f"{num} event{'' if num == 1 else 's'} ({', '.join(counts)})"
    depth = sorted({event.exit for event in detection.events if event.exit is not None})
    where = f", exit {' and '.join(map(str, depth))}" if depth else ""
    took = f"{analysis.seconds:.2f} s"
    return f"{events} in {duration_text(detection.duration)} of sound, heard in {took} by {entry.title}{where}"


def _warnings(detection: Detection) -> str:
    items = "".join(f"<li>{escaped(one)}</li>" for one in detection.warnings)
    return f'<ul class="warnings" aria-label="warnings">{items}</ul>' if items else ""


def picture(detection: Detection) -> str:
    """The picture for the light and for the dark page, with what recording.js needs for its playhead."""
    images, alt = [], escaped(_alt(detection))
    for theme in ("light", "dark"):
        content, (left, right) = draw_picture(detection, theme)
        images.append(f'<img class="only-{theme}" src="{as_data(content, "image/webp")}" alt="{alt}">')
    return (
        '<div class="picture" tabindex="0" role="group" aria-label="picture, scrolls sideways on narrow screens">'
        f'<div class="sheet" data-left="{left:.5f}" data-right="{right:.5f}" data-duration="{detection.duration:.6f}">'
        f'{"".join(images)}<span class="playhead" hidden></span></div></div>'
    )


def _alt(detection: Detection) -> str:
    events = [f"{tidy_label(one.label)} from {one.onset:.1f} to {one.offset:.1f} s" for one in detection.events[:12]]
    said = ", ".join(events) if events else "no events"
    return f"Waveform, spectrogram and a lane with probability and its spread for every class that sounds: {said}."


# ---- one event -------------------------------------------------------------------------------------------------------


def _panels(analysis: Analysis) -> list[str]:
    """Hidden until its event is chosen; of many events those of the most doubtful."""
    both = list(zip(analysis.detection.events, analysis.answers, strict=True))
    chosen = sorted(both, key=lambda one: -event_doubt(one[0]))[:MAX_PANELS]
    return [
        f'<article class="panel" hidden data-onset="{event.onset:.6f}" data-label="{escaped(event.label)}" '
        f'aria-label="{escaped(tidy_label(event.label))}, why and how sure">{why(event, analysis.detection)}'
        f"{spread_picture(event, answers)}</article>"
        for event, answers in chosen
    ]


def why(event: Event, detection: Detection) -> str:
    """Heading and reasons in plain words."""
    look = DECISIONS[event.decision]
    name = tidy_label(event.label)
    onset, offset = (time_text(one, detection.duration) for one in (event.onset, event.offset))
    symbol = f'<span aria-hidden="true">{look.symbol}</span>'
    mark = f'<span class="decision {event.decision or "unjudged"}">{symbol} {look.word}</span>'
    heading = f"<h3>{escaped(name)}, {onset} to {offset} {mark}</h3>"
    reasons = "".join(f"<li>{escaped(one)}</li>" for one in event.reasons or [])
    reasons = f"<p>{BECAUSE['against']}</p><ul>{reasons}</ul>" if reasons else ""
    return f"{heading}<p>{escaped(_because(event))}</p>{reasons}"


def _because(event: Event) -> str:
    if event.confidence is None:
        return BECAUSE["unjudged"].format(score=event.score)
    share = 100 * event.confidence
    many = "more than 99" if share >= 99.5 else "fewer than 1" if share < 0.5 else f"about {share:.0f}"
    sure = BECAUSE["sure"].format(many=many)
    if event.confidence_low is not None and event.confidence_high is not None:
        sure += BECAUSE["interval"].format(low=100 * event.confidence_low, high=100 * event.confidence_high)
    return f"{sure}. {BECAUSE['decided'].get(event.decision, '')}"


def _rule(detection: Detection) -> str:
    items = "".join(f"<li>{escaped(one)}</li>" for one in detection.decision_rule)
    receipt = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(_value(value))}</dd></div>"
        for name, value in detection.receipt.items()
    )
    rule = f"<details><summary>Why? The rule behind the decisions</summary><ul>{items}</ul></details>" if items else ""
    return (
        f"{rule}<details><summary>Receipt: the same settings and file give the same events</summary>"
        f'<dl class="facts">{receipt}</dl></details>'
    )


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "default"
    return "none" if value is None else str(value)


# ---- downloads -------------------------------------------------------------------------------------------------------


def _downloads(detection: Detection) -> str:
    stem = Path(str(detection.file)).stem
    links = []
    for name in available_formats():
        content = as_data(file_of([detection], name), MEDIA_TYPES.get(name, "text/plain"))
        file = escaped(f"{stem}{SUFFIXES[name]}")
        links.append(f'<a class="download" data-format="{name}" download="{file}" href="{content}">{_title(name)}</a>')
    return f'<p class="downloads" role="group" aria-label="downloads"><span>Download:</span> {" ".join(links)}</p>'


def _title(name: str) -> str:
    titles = {"audacity": "Audacity", "raven": "Raven", "jsonl": "JSON Lines", "parquet": "Parquet"}
    return titles.get(name, name.upper())


def available_formats() -> list[str]:
    """Parquet only where pyarrow is installed."""
    return [name for name in WRITERS if name != "parquet" or importlib.util.find_spec("pyarrow") is not None]


def file_of(detections: Sequence[Detection], name: str) -> bytes:
    """What a file of this format holds."""
    if name in BINARY_FORMATS:
        stream = io.BytesIO()
        WRITERS[name](detections, stream, False)
        return stream.getvalue()
    text = io.StringIO(newline="")
    WRITERS[name](detections, text, False)
    return text.getvalue().encode("utf-8", "backslashreplace")


__all__ = ["available_formats", "file_of", "picture", "result_page", "why"]
