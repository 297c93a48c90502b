"""JSON, JSON Lines and CSV: the formats of this package's own, which carry every field of an event.

JSON and JSON Lines carry the whole detection except its frames. CSV has one row per event (RFC 4180, with the columns
`ROW_COLUMNS`): a recording without events leaves no row; duration, warnings and receipt are not carried."""

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from modeling_easysed.detection_easysed import ROW_COLUMNS, Detection, Event
from modeling_easysed.formats.escapes import join_reasons, split_reasons
from modeling_easysed.formats.rows import detection_of, detections_of, event_of, number, text_list, whole_number


def write_json(detections: Iterable[Detection], stream: TextIO, several: bool) -> None:
    """One detection object; of several, an array of them."""
    if not several:
        stream.writelines(detection.to_json() + "\n" for detection in detections)
        return
    stream.write("[")
    for index, detection in enumerate(detections):
        stream.write("\n" if index == 0 else ",\n")
        stream.write(detection.to_json())
        stream.flush()
    stream.write("\n]\n")


def read_json(stream: TextIO, name: str) -> list[Detection]:
    """Detections of one object or an array of objects."""
    text = stream.read()
    if not text.strip():
        return []
    found = _parsed(text, name)
    if not isinstance(found, list):
        return [detection_of_dict(found, name)]
    return [detection_of_dict(one, f"{name}, detection {index}") for index, one in enumerate(found, start=1)]


def write_jsonl(detections: Iterable[Detection], stream: TextIO, several: bool) -> None:
    """One detection object per line and file."""
    for detection in detections:
        stream.write(detection.to_json(indent=None) + "\n")
        stream.flush()


def read_jsonl(stream: TextIO, name: str) -> list[Detection]:
    """Detections of one object per line; empty lines are skipped."""
    lines = ((f"{name}, line {index}", line) for index, line in enumerate(stream, start=1) if line.strip())
    return [detection_of_dict(_parsed(line, where), where) for where, line in lines]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise ValueError(f"{where}: {place}column {error.colno}: no valid JSON: {error.msg}") from error


def detection_of_dict(found: Any, where: str) -> Detection:
    """The detection of what `Detection.to_dict` gave; `where` names it in errors.

    Raises:
        ValueError: a field that is missing or of another kind.
    """
    if not isinstance(found, dict) or not isinstance(found.get("events"), list):
        raise ValueError(f"{where}: must be a detection, an object with a list of events, got {str(found)[:60]}")
    for key, kind in (("file", str), ("receipt", dict)):
        if not isinstance(found.get(key), kind | None):
            raise ValueError(f"{where}: {key} must be {'text' if kind is str else 'an object'}, got {found[key]!r}")
    receipt, warnings, rule = found.get("receipt"), *(text_list(found, key, where) for key in _SENTENCES)
    return detection_of(
        [_event(event, f"{where}, event {index}") for index, event in enumerate(found["events"], start=1)],
        found.get("file"),
        duration=number(found, "duration", where),
        sampling_rate=whole_number(found, "sampling_rate", where),
        receipt={} if receipt is None else receipt,
        warnings=[] if warnings is None else warnings,
        decision_rule=[] if rule is None else rule,
    )


_SENTENCES = ("warnings", "decision_rule")


def _event(found: Any, where: str) -> Event:
    if not isinstance(found, dict):
        raise ValueError(f"{where}: must be an object, got {str(found)[:60]}")
    return event_of(found, where)


def write_csv(detections: Iterable[Detection], stream: TextIO, several: bool) -> None:
    """One row per event with its file; empty cells for what was not computed, reasons joined by `; `."""
    stream.write(",".join(ROW_COLUMNS) + "\n")
    for detection in detections:
        for row, event in zip(detection.to_rows(), detection.events, strict=True):
            row["reasons"] = join_reasons(event.reasons, event.decision)
            stream.write(",".join(_cell(row[column]) for column in ROW_COLUMNS) + "\n")
        stream.flush()


def _cell(value: Any) -> str:
    """One cell. csv.writer on older Pythons leaves a carriage return unquoted, and readers end the row there."""
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(char in text for char in ',"\r\n') else text


def read_csv(stream: TextIO, name: str) -> list[Detection]:
    """One detection per file named in the rows; only onset, offset and label must be there."""
    return detections_of(_csv_events(stream, name))


def _csv_events(stream: TextIO, name: str) -> Iterator[tuple[str | None, Event]]:
    rows = csv.reader(stream, strict=True)  # else an open quote would swallow all rows below it
    try:
        columns = next(rows, None)
        if columns is None:
            return
        missing = [column for column in ("onset", "offset", "label") if column not in columns]
        if missing:
            raise ValueError(f"{name}, line 1: no column {', '.join(missing)} among {', '.join(columns)}")
        line = rows.line_num + 1  # where a row starts: text in quotes may go over several lines
        for cells in rows:
            where, line = f"{name}, line {line}", rows.line_num + 1
            if cells:
                yield _csv_event(columns, cells, where)
    except csv.Error as error:
        raise ValueError(f"{name}, line {rows.line_num}: no valid CSV: {error}") from error


def _csv_event(columns: list[str], cells: list[str], where: str) -> tuple[str | None, Event]:
    extra = len(cells) - len(columns)
    if extra > 0:
        raise ValueError(f"{where}: {extra} more cells than columns; text with a comma needs quotes")
    row: dict[str, Any] = dict(zip(columns, cells, strict=False))
    if "reasons" in row:
        row["reasons"] = split_reasons(row["reasons"], row.get("decision") or None)
    return row.get("file") or None, event_of(row, where)
