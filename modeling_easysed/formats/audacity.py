"""Audacity label tracks: onset, offset and text per line, separated by tabs, without a header.

Source: Audacity Manual, "Importing and Exporting Labels", standard format. A track belongs to one recording and does
not name it. The text is the label and what matters for review: `dog_bark (confidence 0.94, accept)`."""

import re
from collections.abc import Iterable
from typing import TextIO

from modeling_easysed.detection_easysed import Detection, Event
from modeling_easysed.formats.escapes import escape, unescape
from modeling_easysed.formats.rows import DECISIONS, detection_of, event_of, fixed, short

RESERVED = "\t\n\r"
_DECISION = "|".join(DECISIONS)
_VALUE = rf"(?P<name>confidence|score) (?P<value>-?\d+(?:\.\d+)?)(?:, (?P<decision>{_DECISION}))?"
# The remark behind a label. An empty one, " ()", keeps a label apart that ends like a remark itself.
_REMARK = re.compile(rf"(?P<label>.*) \((?:{_VALUE}|(?P<only>{_DECISION})|)\)", re.DOTALL)


def write_audacity(detections: Iterable[Detection], stream: TextIO, several: bool) -> None:
    """One line per event of one recording.

    Raises:
        ValueError: a second recording, for which the format has no place.
    """
    for index, detection in enumerate(detections):
        if index > 0:
            raise ValueError(
                "an Audacity label track holds one recording: write one file for each, or choose csv or rttm"
            )
        stream.writelines(
            f"{fixed(event.onset)}\t{fixed(event.offset)}\t{label_text(event)}\n" for event in detection.events
        )
        stream.flush()


def label_text(event: Event) -> str:
    """`label (confidence 0.94, accept)`; the score where there is no confidence, the label alone without either."""
    label = escape(event.label, RESERVED)
    parts = []
    if event.confidence is not None:
        parts.append(f"confidence {short(event.confidence)}")
    elif event.score is not None:
        parts.append(f"score {short(event.score)}")
    if event.decision is not None:
        parts.append(event.decision)
    if not parts and not _REMARK.fullmatch(label):
        return label
    return f"{label} ({', '.join(parts)})"


def read_audacity(stream: TextIO, name: str) -> list[Detection]:
    """One detection whose file, duration and sampling rate are None; frequency ranges of labels are skipped."""
    events = []
    for index, line in enumerate(stream.read().split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith("\\"):  # `\<tab>low<tab>high`: the frequencies of the label above
            continue
        where = f"{name}, line {index}"
        cells = line.split("\t", maxsplit=2)
        if len(cells) < 2:
            raise ValueError(f"{where}: must be onset<tab>offset<tab>label, got {line[:60]!r}")
        row = {"onset": cells[0], "offset": cells[1], **_fields(cells[2] if len(cells) == 3 else "")}
        events.append(event_of(row, where))
    return [detection_of(events)]


def _fields(text: str) -> dict[str, str | None]:
    """What `label_text` has put together; a text in another form is the label as a whole."""
    match = _REMARK.fullmatch(text)
    if match is None:
        return {"label": unescape(text, RESERVED)}
    fields = {"label": unescape(match["label"], RESERVED), "decision": match["decision"] or match["only"]}
    return fields if match["name"] is None else fields | {match["name"]: match["value"]}
