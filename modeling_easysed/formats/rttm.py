"""RTTM, the Rich Transcription Time Marked text of NIST: ten fields per line, separated by spaces.

Source: NIST, The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan, appendix A. An event is a
`SPEAKER` line whose speaker is the label: `SPEAKER file 1 onset duration <NA> <NA> label confidence <NA>`."""

import re
from collections.abc import Iterable, Iterator
from typing import TextIO

from modeling_easysed.detection_easysed import Detection, Event
from modeling_easysed.formats.escapes import escape, unescape
from modeling_easysed.formats.rows import detections_of, end_of, event_of, fixed, number, short

NULL = "<NA>"
# All that one reader or another separates fields at (white space in the sense of Unicode), control characters, the
# quote that readers of tables look for, and "<" so that no name is taken for <NA>.
RESERVED = "".join(chr(code) for code in range(0x3001) if chr(code).isspace() or code < 32) + '\x7f"<'


def write_rttm(detections: Iterable[Detection], stream: TextIO, several: bool) -> None:
    """One line per event; names are percent-encoded where RTTM would break at them: `dog bark` is `dog%20bark`."""
    for detection in detections:
        for event in detection.events:
            value = event.score if event.confidence is None else event.confidence
            times = f"{fixed(event.onset)} {fixed(event.offset - event.onset)}"
            confidence = NULL if value is None else short(value)
            stream.write(
                f"SPEAKER {_field(detection.file)} 1 {times} {NULL} {NULL} {_field(event.label)} {confidence} {NULL}\n"
            )
        stream.flush()


def _field(name: str | None) -> str:
    return escape(name, RESERVED) if name else NULL


def _name(field: str) -> str:
    return "" if field == NULL else unescape(field, RESERVED)


def read_rttm(stream: TextIO, name: str) -> list[Detection]:
    """One detection per file named in the `SPEAKER` lines; lines of other types and comments (;;) are skipped.

    RTTM does not say whether its confidence was calibrated, so that it is read as `score`.
    """
    return detections_of(_events(stream, name))


def _events(stream: TextIO, name: str) -> Iterator[tuple[str | None, Event]]:
    for index, line in enumerate(stream.read().split("\n"), start=1):
        fields, where = re.findall(r"[^ \t\r]+", line), f"{name}, line {index}"
        if not fields or fields[0].upper() != "SPEAKER":
            continue
        if len(fields) < 8:
            raise ValueError(f"{where}: a SPEAKER line has 9 or 10 fields, got {len(fields)}")
        onset, length = (number({key: fields[at]}, key, where) for key, at in (("onset", 3), ("duration", 4)))
        if length <= 0:
            raise ValueError(f"{where}: duration must be > 0 seconds, got {length:g}")
        score = fields[8] if len(fields) > 8 and fields[8] != NULL else None
        row = {"onset": onset, "offset": end_of(onset, length), "label": _name(fields[7]), "score": score}
        yield _name(fields[1]) or None, event_of(row, where)
