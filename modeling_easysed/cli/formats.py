"""Output formats of `easysed detect`: the table for people, and the formats of `modeling_easysed.formats`.

A format is a function (detections, stream, several). `detections` may be a generator that computes while it is read, so
a format writes each one as it comes. `several` says that the input was a folder or more than one file, whatever became
of them."""

import io
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

from modeling_easysed.formats import names

if TYPE_CHECKING:
    from modeling_easysed.detection_easysed import Detection, Event

Write = Callable[[Iterable["Detection"], Any, bool], None]

FORMATS = ("table", *names.FORMATS)
SUFFIXES = {"table": ".txt", **names.SUFFIXES}  # of files in an --out folder


def format_of(chosen: str | None, out_file: str | None) -> str:
    """The format chosen by name, else what the name of the output file stands for, else the table."""
    if chosen is not None:
        return chosen
    found = None if out_file is None else names.format_of_name(out_file)
    return "table" if found is None else found


def is_binary(format_name: str) -> bool:
    return format_name in names.BINARY_FORMATS


def writer_of(format_name: str) -> Write:
    """The function that writes a format."""
    if format_name == "table":
        return write_table
    from modeling_easysed.formats.files import WRITERS

    return WRITERS[format_name]


def write_to_stdout(detections: Iterable["Detection"], format_name: str, several: bool) -> None:
    """Text as it comes; binary formats when they are whole, because a pipe cannot tell positions."""
    if not is_binary(format_name):
        writer_of(format_name)(detections, sys.stdout, several)
        return
    content = io.BytesIO()
    writer_of(format_name)(detections, content, several)
    sys.stdout.buffer.write(content.getvalue())
    sys.stdout.buffer.flush()


def write_table(detections: Iterable["Detection"], stream: TextIO, several: bool) -> None:
    """For people: one block per file, one line per event, and what speaks against it below."""
    for number, detection in enumerate(detections):
        count = len(detection.events)
        gap = "\n" if number > 0 else ""
        stream.write(f"{gap}{detection.file}  {detection.duration:.2f} s, {count} event{'' if count == 1 else 's'}\n")
        if count > 0:
            is_judged = any(event.decision is not None for event in detection.events)
            width = max(5, *(len(event.label) for event in detection.events))
            judged = "  confidence         decision" if is_judged else ""
            stream.write(f"{'onset':>9} {'offset':>9}  {'label':<{width}}  score{judged}\n")
            stream.writelines(_table_lines(event, width) for event in detection.events)
        stream.writelines(f"  {sentence}\n" for sentence in detection.decision_rule if count > 0 and not several)
        stream.flush()


def _table_lines(event: "Event", width: int) -> str:
    line = f"{event.onset:9.2f} {event.offset:9.2f}  {event.label:<{width}}  {event.score:5.2f}"
    if event.decision is None:
        return f"{line}\n"
    interval = f"{event.confidence:.2f} ({event.confidence_low:.2f}-{event.confidence_high:.2f})"
    reasons = "".join(f"{'':22}{reason}\n" for reason in event.reasons)
    return f"{line}  {interval:<17}  {event.decision}\n{reasons}"
