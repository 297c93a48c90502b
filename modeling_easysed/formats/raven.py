"""Raven selection tables: tab-separated text with a header, as Raven Pro and Raven Lite open and save.

Source: Raven Pro User's Manual, selection tables and file sequences. Columns beyond Raven's own are annotations there.
A table of several recordings counts its times through the files in their order, as Raven does for files that are opened
as one sequence, and keeps the onset in each file as `File Offset (s)`."""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import TextIO

from modeling_easysed.detection_easysed import Detection, Event
from modeling_easysed.formats.escapes import escape, join_reasons, split_reasons, unescape
from modeling_easysed.formats.rows import detections_of, end_of, event_of, fixed, number, short

RESERVED = "\t\n\r"
VIEW = "Spectrogram 1"
COLUMNS = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")
FILE_COLUMNS = ("Begin Path", "Begin File")
FILE_OFFSET = "File Offset (s)"
LABEL_COLUMNS = ("Annotation", "Label", "Species", "Common Name", "Species Code")  # the first is written, all are read
OWN_COLUMNS = ("Score", "Confidence", "Confidence Low", "Confidence High", "Decision", "Reasons")


def write_raven(detections: Iterable[Detection], stream: TextIO, several: bool) -> None:
    """One selection per event over all frequencies, 0 Hz to half the sampling rate.

    Raises:
        ValueError: a recording with events whose sampling rate is unknown, or, of several recordings, one before the
            last whose duration is unknown: Raven would draw its selections in the wrong place.
    """
    columns = (*COLUMNS, *FILE_COLUMNS, *([FILE_OFFSET] if several else []), LABEL_COLUMNS[0], *OWN_COLUMNS)
    stream.write("\t".join(columns) + "\n")
    start_s: float | None = 0.0
    selection = 0
    for detection in detections:
        if start_s is None:
            raise ValueError("Raven tables of several recordings need the duration of each: set detection.duration")
        for event in detection.events:
            selection += 1
            cells = _cells(detection, event, selection, start_s)
            stream.write("\t".join(escape(cells[column], RESERVED) for column in columns) + "\n")
        start_s = None if detection.duration is None else start_s + detection.duration
        stream.flush()


def _cells(detection: Detection, event: Event, selection: int, start_s: float) -> dict[str, str]:
    if detection.sampling_rate is None:
        raise ValueError("Raven needs the upper frequency of every selection: set detection.sampling_rate (Hz)")
    path = "" if detection.file is None else detection.file
    return {
        "Selection": str(selection),
        "View": VIEW,
        "Channel": "1",
        "Begin Time (s)": fixed(start_s + event.onset),
        "End Time (s)": fixed(start_s + event.offset),
        "Low Freq (Hz)": "0.0",
        "High Freq (Hz)": short(detection.sampling_rate / 2),
        "Begin Path": path,
        "Begin File": (PureWindowsPath(path) if "\\" in path else PurePosixPath(path)).name,
        FILE_OFFSET: fixed(event.onset),
        LABEL_COLUMNS[0]: event.label,
        "Score": short(event.score),
        "Confidence": short(event.confidence),
        "Confidence Low": short(event.confidence_low),
        "Confidence High": short(event.confidence_high),
        "Decision": "" if event.decision is None else event.decision,
        "Reasons": join_reasons(event.reasons, event.decision),
    }


def read_raven(stream: TextIO, name: str) -> list[Detection]:
    """One detection per file named in the table, with the times in that file; duration and sampling rate are None.

    Of a selection that Raven lists once for each of its views, the first row counts.
    """
    return detections_of(_events(stream, name))


def _events(stream: TextIO, name: str) -> Iterator[tuple[str | None, Event]]:
    header: list[str] | None = None
    label = ""
    seen: dict[str, str] = {}
    for index, line in enumerate(stream.read().split("\n"), start=1):
        if not line.strip():
            continue
        cells, where = line.rstrip("\r").split("\t"), f"{name}, line {index}"
        if header is None:
            header = [cell.strip().lower() for cell in cells]
            label = _label_column(header, where)
            continue
        if any(cell for cell in cells[len(header) :]):
            raise ValueError(f"{where}: {len(cells)} cells under {len(header)} columns")
        row = {column: unescape(cell, RESERVED) for column, cell in zip(header, cells, strict=False)}
        selection, view = row.get("selection", ""), row.get("view", "")
        if selection and seen.setdefault(selection, view) != view:
            continue
        file = row.get("begin path") or row.get("begin file") or None
        yield file, event_of(_fields(row, label, where), where)


def _label_column(header: list[str], where: str) -> str:
    missing = [column for column in ("Begin Time (s)", "End Time (s)") if column.lower() not in header]
    labels = [column.lower() for column in LABEL_COLUMNS if column.lower() in header]
    if not labels:
        missing.append(" or ".join(LABEL_COLUMNS))
    if missing:
        raise ValueError(f"{where}: a Raven selection table needs the column {', '.join(missing)}")
    return labels[0]


def _fields(row: dict[str, str], label: str, where: str) -> dict[str, object]:
    """The fields of `Event` that a row of lower-case columns holds."""
    fields: dict[str, object] = {column.lower().replace(" ", "_"): row.get(column.lower()) for column in OWN_COLUMNS}
    fields |= {"onset": row.get("begin time (s)"), "offset": row.get("end time (s)"), "label": row.get(label)}
    begin, end, in_file = (
        number({key: value}, key, where)
        for key, value in (
            ("onset", fields["onset"]),
            ("offset", fields["offset"]),
            (FILE_OFFSET, row.get(FILE_OFFSET.lower())),
        )
    )
    if begin is not None and end is not None and in_file is not None:
        fields |= {"onset": in_file, "offset": end_of(in_file, end - begin)}
    if row.get("reasons") is not None:
        fields["reasons"] = split_reasons(row["reasons"], row.get("decision") or None)
    return fields
