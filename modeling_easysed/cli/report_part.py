"""One recording of a report: its section of the page, with its picture and its sound inside, and a head for sorting.

A part is a file: one line of JSON, the head, then the HTML of the section. It depends on nothing but the recording and
its detection, so that parts can be made by any process, at any time, and put together later."""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from modeling_easysed.cli.report import escaped
from modeling_easysed.palette_easysed import DECISIONS, duration_text, tidy_label, time_text
from modeling_easysed.reasons_easysed import INPUT_WORDS

if TYPE_CHECKING:
    from modeling_easysed.detection_easysed import Detection, Event

# At 16 kHz libsndfile writes a header that lets players skip the encoder's delay only from 40 kbit/s on: below, all
# sounds would come 69 ms late. MP3, because Safari has played Ogg for too short a time.
SOUND_RATE, SOUND_LEVEL, SOUND_KBITS = 16000, 0.8, 40
WHOLE_S = 60.0  # longer recordings are heard around their events only
BUDGET_S = 60.0  # of such stretches together, 0.4 MB
EVENT_S, MARGIN_S = 20.0, 1.0  # of a longer event its beginning; what is heard before and after
PICTURE_DPI, PICTURE_QUALITY = 110, 70


class Stretch(NamedTuple):
    """A part of a recording whose sound is embedded, seconds."""

    start: float
    stop: float


# ---- doubt -----------------------------------------------------------------------------------------------------------


def event_doubt(event: "Event") -> float:
    """How much of a doubt one event is: 1 for review, the chance to be wrong when accepted, nothing when rejected.

    Without a decision, 1 - score, which is no probability.
    """
    if event.decision is None:
        return 1.0 - (event.score or 0.0)
    return {"review": 1.0, "accept": 1.0 - (event.confidence or 0.0)}.get(event.decision, 0.0)


def expected_wrong(events: Sequence["Event"]) -> float:
    """Expected number of wrong events among the accepted ones, as far as their confidence is right."""
    return sum(event_doubt(event) for event in events if event.decision == "accept")


def doubt_of(events: Sequence["Event"]) -> float:
    """Doubt of a recording: expected wrong events among the accepted ones plus the events for review."""
    return sum(event_doubt(event) for event in events)


def head_of(detection: "Detection") -> dict[str, Any]:
    """What the page needs to know of a recording beside its section."""
    decisions = [event.decision for event in detection.events]
    return {
        "file": str(detection.file),
        "id": section_id(str(detection.file)),
        "doubt": round(doubt_of(detection.events), 6),
        "wrong": round(expected_wrong(detection.events), 6),
        "duration": detection.duration,
        "counts": {name: decisions.count(name or None) for name in ("accept", "review", "reject", "")},
        "labels": sorted({event.label for event in detection.events}),
        "decision_rule": detection.decision_rule,
        "warnings": [one for one in detection.warnings if not one.startswith(INPUT_WORDS)],
    }


def section_id(file: str) -> str:
    return f"r-{hashlib.sha256(file.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


# ---- sound -----------------------------------------------------------------------------------------------------------


def choose_stretches(events: Sequence["Event"], duration: float) -> list[Stretch]:
    """What is embedded: all of a short recording, else stretches around events, the most doubtful first.

    Stretches that touch are one; together they are at most `BUDGET_S` long.
    """
    if duration <= WHOLE_S:
        return [Stretch(0.0, duration)]
    chosen: list[Stretch] = []
    for event in sorted(events, key=_order_of_doubt):
        new = Stretch(max(0.0, event.onset - MARGIN_S), min(duration, heard_until(event) + MARGIN_S))
        grown = _merged([*chosen, new])
        if sum(one.stop - one.start for one in grown) <= BUDGET_S:
            chosen = grown
    return chosen


def _order_of_doubt(event: "Event") -> tuple[float, float, float]:
    """Of equal doubt, as all for review have, that comes first whose confidence is nearest to one half."""
    confidence = event.score if event.confidence is None else event.confidence
    return -event_doubt(event), abs((confidence or 0.0) - 0.5), event.onset


def heard_until(event: "Event") -> float:
    """Where the sound of an event stops, seconds; of a long one the beginning is heard."""
    return min(event.offset, event.onset + EVENT_S)


def _merged(stretches: list[Stretch]) -> list[Stretch]:
    merged: list[Stretch] = []
    for one in sorted(stretches):
        if merged and one.start <= merged[-1].stop:
            merged[-1] = Stretch(merged[-1].start, max(merged[-1].stop, one.stop))
        else:
            merged.append(one)
    return merged


def cut_sound(path: Path, stretches: Sequence[Stretch]) -> list[np.ndarray]:
    """Samples (samples,) of stretches of a recording, mono at `SOUND_RATE`; read in blocks, whatever its length."""
    from modeling_easysed.long_recordings_easysed import AudioBlocks

    spans = [(round(one.start * SOUND_RATE), round(one.stop * SOUND_RATE)) for one in stretches]
    pieces: list[list[np.ndarray]] = [[] for _ in spans]
    position = 0
    blocks = iter(AudioBlocks(path, SOUND_RATE)) if spans else iter(())
    for block in blocks:
        for (start, stop), own in zip(spans, pieces, strict=True):
            piece = block[max(0, start - position) : max(0, stop - position)]
            if len(piece) > 0:
                own.append(piece.copy())
        position += len(block)
        if position >= spans[-1][1]:
            break
    return [np.concatenate(own) if own else np.zeros(1, np.float32) for own in pieces]


def encode_sound(samples: np.ndarray) -> bytes:
    """(samples,) at `SOUND_RATE` as MP3."""
    import soundfile

    target = io.BytesIO()
    settings = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
    soundfile.write(target, samples.clip(-1.0, 1.0), SOUND_RATE, compression_level=SOUND_LEVEL, **settings)
    return target.getvalue()


# ---- picture ---------------------------------------------------------------------------------------------------------


def draw_picture(detection: "Detection", theme: str) -> tuple[bytes, tuple[float, float]]:
    """The picture as WebP, and where its time axis begins and ends, as shares of its width."""
    from modeling_easysed.plot_easysed import plot_detection

    figure, target = plot_detection(detection, theme=theme, with_title=False), io.BytesIO()
    figure.savefig(target, format="webp", dpi=PICTURE_DPI, pil_kwargs={"quality": PICTURE_QUALITY, "method": 4})
    place = figure.axes[0].get_position()
    return target.getvalue(), (place.x0, place.x1)


def _size_of(picture: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        return image.size


# ---- the section -----------------------------------------------------------------------------------------------------


def write_part(stream: BinaryIO, detection: "Detection", path: Path) -> None:
    """Writes the part of one recording.

    Args:
        stream: binary, to write to.
        detection: of the recording, with its frames.
        path: the recording, whose sound is embedded.

    Raises:
        ImportError: without matplotlib.
        AudioError: a recording that cannot be read any more.
    """
    head = json.dumps(head_of(detection), sort_keys=True)  # ASCII: names that are no text stay what they are
    stream.write(f"{head}\n".encode("ascii"))
    for text in _section(detection, path):
        stream.write(text.encode("utf-8", "backslashreplace"))


def _section(detection: "Detection", path: Path) -> list[str]:
    stretches = choose_stretches(detection.events, detection.duration)
    file, name = escaped(str(detection.file)), escaped(Path(str(detection.file)).name)
    about = (
        f"{duration_text(detection.duration)} · {detection.sampling_rate} Hz · doubt {doubt_of(detection.events):.2f}"
    )
    warnings = "".join(f"<li>{escaped(one)}</li>" for one in detection.warnings if one.startswith(INPUT_WORDS))
    return [
        f'<section class="recording" id="{section_id(str(detection.file))}" aria-label="{name}">\n',
        f'<h2>{name}</h2>\n<p class="about"><span class="path">{file}</span> · {escaped(about)}</p>\n',
        f'<ul class="warnings" aria-label="warnings">{warnings}</ul>\n' if warnings else "",
        _figure(detection),
        sounds_of(cut_sound(path, stretches), stretches, detection),
        table_of(detection, stretches),
        "</section>\n",
    ]


def _figure(detection: "Detection") -> str:
    (light, (left, right)), (dark, _) = (draw_picture(detection, theme) for theme in ("light", "dark"))
    width, height = _size_of(light)
    count = len(detection.events)
    alt = (
        f"Waveform, spectrogram and class probabilities; {count} event{'' if count == 1 else 's'}, in the table below."
    )
    return (
        f'<div class="picture" tabindex="0" role="group" aria-label="picture, scrolls sideways on narrow screens">'
        f'<div class="sheet" data-left="{left:.5f}" data-right="{right:.5f}" data-duration="{detection.duration:.6f}">'
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{as_data(dark, "image/webp")}">'
        f'<img src="{as_data(light, "image/webp")}" width="{width}" height="{height}" alt="{alt}" loading="lazy">'
        '</picture><span class="playhead" hidden></span></div></div>\n'
    )


def sounds_of(sounds: list[np.ndarray], stretches: list[Stretch], detection: "Detection") -> str:
    """One player for a short recording, else a folded list of one for every stretch."""
    players = []
    for samples, (start, stop) in zip(sounds, stretches, strict=True):
        begin, end = (time_text(one, detection.duration, 1) for one in (start, stop))
        player = (
            f'<audio controls preload="none" data-start="{start:.6f}" data-stop="{stop:.6f}" '
            f'aria-label="sound from {begin} to {end}" src="{as_data(encode_sound(samples), "audio/mpeg")}"></audio>'
        )
        players.append(player if detection.duration <= WHOLE_S else f"<li><span>{begin} – {end}</span>{player}</li>")
    if detection.duration <= WHOLE_S:
        return f'<div class="sound">{"".join(players)}</div>\n'
    if not players:
        return '<p class="note">Too long to be embedded, and without events around which it could be cut.</p>\n'
    count = f"{len(players)} stretch{'' if len(players) == 1 else 'es'} of its sound"
    return f'<details class="sound"><summary>{count}</summary><ul>{"".join(players)}</ul></details>\n'


COLUMNS = ("onset", "offset", "label", "confidence", "decision", "reasons")


def table_of(detection: "Detection", stretches: list[Stretch]) -> str:
    """The events as a table that recording.js sorts and plays."""
    if not detection.events:
        return '<p class="note">No events.</p>\n'
    headings = "".join(
        f'<th scope="col" role="columnheader"{" aria-sort=ascending" if name == "onset" else ""}>'
        f'<button type="button" class="sort" data-column="{number}">{name}</button></th>'
        for number, name in enumerate(COLUMNS)
    )
    rows = "".join(_row(event, detection.duration, stretches) for event in detection.events)
    return (
        f'<table role="table"><caption class="unseen">events of {escaped(Path(str(detection.file)).name)}</caption>'
        f'<thead role="rowgroup"><tr role="row">{headings}</tr></thead><tbody role="rowgroup">{rows}</tbody></table>\n'
    )


def _row(event: "Event", duration: float, stretches: list[Stretch]) -> str:
    """One event; its data-value attributes are what is sorted by."""
    label, look = tidy_label(event.label), DECISIONS[event.decision]
    onset, offset = (time_text(one, duration) for one in (event.onset, event.offset))
    until = heard_until(event)
    is_heard = any(one.start <= event.onset + 1e-6 and until <= one.stop + 1e-6 for one in stretches)
    title = f"Play {label}, {onset} to {offset}" + ("" if until == event.offset else f", the first {EVENT_S:g} s")
    title = title if is_heard else f"{label} at {onset}: its sound is not embedded"
    button = (
        f'<button type="button" class="play" aria-label="{escaped(title)}" title="{escaped(title)}"'
        f"{'' if is_heard else ' disabled'}>▶</button>"
    )
    times = [_with_interval(one, *limits, duration) for one, limits in _borders(event)]
    decision = event.decision or "unjudged"
    cells = (
        (event.onset, f"{button} {times[0]}"),
        (event.offset, times[1]),
        (label, escaped(label)),
        (event.score if event.confidence is None else event.confidence, _confidence(event)),
        (
            look.word,
            f'<span class="decision {decision}"><span aria-hidden="true">{look.symbol}</span> {look.word}</span>',
        ),
        ("; ".join(event.reasons or []), "<br>".join(escaped(one) for one in event.reasons or [])),
    )
    inside = "".join(
        f'<td role="cell" class="{name}-cell" data-value="{escaped(str(value))}">{text}</td>'
        for name, (value, text) in zip(COLUMNS, cells, strict=True)
    )
    return (
        f'<tr role="row" data-decision="{decision}" data-label="{escaped(event.label)}" data-onset="{event.onset:.6f}" '
        f'data-until="{until:.6f}">{inside}</tr>'
    )


def _borders(event: "Event") -> list[tuple[float, tuple[float | None, float | None]]]:
    return [
        (event.onset, (event.onset_low, event.onset_high)),
        (event.offset, (event.offset_low, event.offset_high)),
    ]


def _with_interval(value: float, low: float | None, high: float | None, duration: float) -> str:
    shown = f"<span>{time_text(value, duration)}</span>"
    if low is None or high is None:
        return shown
    return f'{shown} <small class="interval">{time_text(low, duration)}–{time_text(high, duration)}</small>'


def _confidence(event: "Event") -> str:
    if event.confidence is None:
        return f"score {event.score:.2f}"
    low, high = event.confidence_low, event.confidence_high
    interval = "" if low is None or high is None else f' <small class="interval">{low:.2f}–{high:.2f}</small>'
    return f"<span>{event.confidence:.2f}</span>{interval}"


def as_data(content: bytes, kind: str) -> str:
    """A data: address, so that the page needs no second file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


__all__ = [
    "Stretch",
    "as_data",
    "choose_stretches",
    "cut_sound",
    "doubt_of",
    "draw_picture",
    "event_doubt",
    "expected_wrong",
    "head_of",
    "sounds_of",
    "table_of",
    "write_part",
]
