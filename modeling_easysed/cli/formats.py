"""Output formats of `easysed detect`: functions (detections, stream, several).

`detections` may be a generator that computes while it is read, so a format writes each one as it comes. `several` says
that the input was a folder or more than one file, whatever became of them."""

import csv
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from modeling_easysed.detection_easysed import Detection, Event

Write = Callable[[Iterable["Detection"], TextIO, bool], None]


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


def write_json(detections: Iterable["Detection"], stream: TextIO, several: bool) -> None:
    """One detection object; of several, an array of them."""
    if not several:
        stream.writelines(detection.to_json() + "\n" for detection in detections)
        return
    stream.write("[")
    for number, detection in enumerate(detections):
        stream.write("\n" if number == 0 else ",\n")
        stream.write(detection.to_json())
        stream.flush()
    stream.write("\n]\n")


def write_jsonl(detections: Iterable["Detection"], stream: TextIO, several: bool) -> None:
    """One detection object per line and file."""
    for detection in detections:
        stream.write(json.dumps(detection.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()


def write_csv(detections: Iterable["Detection"], stream: TextIO, several: bool) -> None:
    """One row per event with its file; empty cells for what was not computed."""
    from modeling_easysed.detection_easysed import ROW_COLUMNS

    rows = csv.DictWriter(stream, ROW_COLUMNS, lineterminator="\n")
    rows.writeheader()
    for detection in detections:
        rows.writerows(detection.to_rows())
        stream.flush()


FORMATS: dict[str, Write] = {"table": write_table, "json": write_json, "jsonl": write_jsonl, "csv": write_csv}
SUFFIXES = {"table": ".txt", "json": ".json", "jsonl": ".jsonl", "csv": ".csv"}  # of files in an --out folder
