"""Rows of a file to checked events and detections: what all formats share when they are read."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from modeling_easysed.detection_easysed import JUDGED_FIELDS, TIME_DECIMALS, UNCERTAINTY_PARTS, Detection, Event

DECISIONS = ("accept", "review", "reject")
_NUMBERS = ("score", *JUDGED_FIELDS)


def event_of(row: Mapping[str, Any], where: str) -> Event:
    """One event from the fields of a row.

    Args:
        row: fields of `Event` as numbers or text, `uncertainty` as a dict or as the columns `uncertainty_total`, ...;
            `reasons` as a list. None, an empty cell of a number and a missing key are None; other keys are ignored.
        where: file and line, to name them in errors.

    Raises:
        ValueError: no number, NaN or infinite; offset <= onset; no label; an unknown decision.
    """
    onset, offset = number(row, "onset", where), number(row, "offset", where)
    for name, value in (("onset", onset), ("offset", offset), ("label", row.get("label"))):
        if value is None:
            raise ValueError(f"{where}: {name} is missing")
    if onset < 0:
        raise ValueError(f"{where}: onset must be >= 0 seconds, got {onset:g}")
    if offset <= onset:
        raise ValueError(f"{where}: offset must be > onset, got onset {onset:g} and offset {offset:g}")
    if not isinstance(row["label"], str):
        raise ValueError(f"{where}: label must be text, got {row['label']!r}")
    exit_index = whole_number(row, "exit", where)
    return Event(
        onset=onset,
        offset=offset,
        label=row["label"],
        **{name: number(row, name, where) for name in _NUMBERS},
        uncertainty=_uncertainty(row, where),
        decision=_decision(row.get("decision"), where),
        reasons=text_list(row, "reasons", where),
        exit=exit_index,
    )


def number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    """A finite number of a row, None where there is none."""
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{where}: {name} must be a finite number, got {value!r}")
    return found


def whole_number(row: Mapping[str, Any], name: str, where: str) -> int | None:
    """A whole number of a row, also one written as 2.0; None where there is none."""
    found = number(row, name, where)
    if found is not None and not found.is_integer():
        raise ValueError(f"{where}: {name} must be a whole number, got {row[name]!r}")
    return None if found is None else int(found)


def text_list(row: Mapping[str, Any], name: str, where: str) -> list[str] | None:
    """A list of text, None where there is none."""
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{where}: {name} must be a list of text, got {value!r}")
    return list(value)


def _uncertainty(row: Mapping[str, Any], where: str) -> dict[str, float] | None:
    parts = row.get("uncertainty")
    if parts is None:
        parts = {part: row.get(f"uncertainty_{part}") for part in UNCERTAINTY_PARTS}
    if not isinstance(parts, dict):
        raise ValueError(f"{where}: uncertainty must be an object of numbers, got {parts!r}")
    found = {part: number(parts, part, where) for part in parts}
    known = {part: value for part, value in found.items() if value is not None}
    return known if known else None


def _decision(value: Any, where: str) -> str | None:
    if value is None or value == "":
        return None
    if value not in DECISIONS:
        raise ValueError(f"{where}: decision must be one of {', '.join(DECISIONS)}, got {value!r}")
    return value


def end_of(onset: float, length: float) -> float:
    """Onset and length in seconds to the offset, rounded as all times are: 0.1 + 0.2 is 0.3."""
    return round(onset + length, TIME_DECIMALS)


def fixed(seconds: float) -> str:
    """Seconds with six decimals, never with an exponent."""
    return f"{seconds:.{TIME_DECIMALS}f}"


def short(value: float | None) -> str:
    """A number with at most six decimals and no exponent; an empty text for None."""
    if value is None:
        return ""
    digits = fixed(value).rstrip("0")
    return f"{digits}0" if digits.endswith(".") else digits


def detection_of(events: Iterable[Event], file: str | None = None, **fields: Any) -> Detection:
    """A detection without frames: `frame_times` (0,), `probabilities` (0, classes), classes = labels of the events."""
    found = sorted(events, key=lambda event: event.onset)
    labels = list(dict.fromkeys(event.label for event in found))
    values = {"duration": None, "sampling_rate": None} | fields
    return Detection(found, np.zeros(0), np.zeros((0, len(labels))), labels, file=file, **values)


def detections_of(pairs: Iterable[tuple[str | None, Event]]) -> list[Detection]:
    """(file, event) pairs to one detection per file, in the order of the files' first events."""
    files: dict[str | None, list[Event]] = {}
    for file, event in pairs:
        files.setdefault(file, []).append(event)
    return [detection_of(events, file) for file, events in files.items()]
