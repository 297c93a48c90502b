"""Event lists in, one checked table out.

Every metric of this package reads its events here, so that the edge cases on which the field's packages disagree are
settled once. Times are held as whole microseconds: sums and differences are then exact, and an onset that is 0.2 s
late in decimal numbers (2.2 - 2.0) is on the 0.2 s collar, not beyond it.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Events = Mapping[str, Sequence[Sequence[Any]]]

MICROSECONDS_PER_SECOND = 1_000_000


@dataclass(frozen=True)
class EvaluationSet:
    """What is evaluated: the files, the classes and, where known, the length of every file.

    Attributes:
        files: file names; their order gives the file index.
        classes: class names; their order gives the class index.
        durations: (files,) file lengths in whole microseconds, or None.
    """

    files: list[str]
    classes: list[str]
    durations: np.ndarray | None


@dataclass(frozen=True)
class EventTable:
    """The events of all files, one row per event, file after file.

    Attributes:
        file: (events,) index into the files, never falling.
        label: (events,) index into the classes.
        onset: (events,) whole microseconds from the start of the file.
        offset: (events,) whole microseconds, after the onset.
        score: (events,) confidence of a scored box, 0 for plain events.
    """

    file: np.ndarray
    label: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    score: np.ndarray

    def select(self, rows: np.ndarray | slice) -> "EventTable":
        """The table of the given rows: a boolean mask, indices or a slice."""
        return EventTable(self.file[rows], self.label[rows], self.onset[rows], self.offset[rows], self.score[rows])

    def of_file(self, file_index: int) -> "EventTable":
        """The events of one file; the rows are in the order of the files."""
        return self.select(slice(*np.searchsorted(self.file, [file_index, file_index + 1])))


def to_microseconds(seconds: Any) -> np.ndarray:
    """Seconds, of any shape, rounded to whole microseconds in float64 (exact up to 285 years)."""
    return np.round(np.asarray(seconds, dtype=np.float64) * MICROSECONDS_PER_SECOND)


def check_evaluation_set(
    references: Events,
    predictions: Mapping[str, Any],
    predictions_name: str,
    classes: Sequence[str],
    durations: Mapping[str, float] | None = None,
) -> EvaluationSet:
    """Check that references, predictions and durations speak of the same files and that the classes are usable.

    Raises:
        ValueError: if there is no file, a file is missing on one side, a duration is not positive, or classes are empty
            or repeated.
    """
    if isinstance(classes, str) or len(classes) == 0:
        raise ValueError(f"classes must be a list with at least one class name, got {classes!r}; list every class")
    repeated = sorted({name for name in classes if list(classes).count(name) > 1})
    if repeated:
        raise ValueError(f"classes must not repeat a name, got {repeated} more than once; list each class once")
    if len(references) == 0:
        raise ValueError("references must name at least one file, got none; give an empty list for a silent file")
    _check_same_files(references, predictions, predictions_name, "an empty list for a file without events")
    if durations is None:
        return EvaluationSet(list(references), list(classes), None)
    _check_same_files(references, durations, "durations", "its length in seconds for every file")
    for file, duration in durations.items():
        if not (math.isfinite(duration) and duration > 0):
            raise ValueError(f"durations[{file!r}] must be a positive number of seconds, got {duration}; measure it")
    durations_us = to_microseconds([durations[file] for file in references])
    return EvaluationSet(list(references), list(classes), durations_us)


def _check_same_files(references: Events, other: Mapping[str, Any], other_name: str, remedy: str) -> None:
    missing = [file for file in references if file not in other]
    extra = [file for file in other if file not in references]
    if missing or extra:
        raise ValueError(
            f"{other_name} and references must name the same files, got {len(missing)} files without {other_name} "
            f"{missing[:3]} and {len(extra)} without references {extra[:3]}; give {remedy}"
        )


def read_events(events: Events, name: str, evaluation_set: EvaluationSet, scored: bool = False) -> EventTable:
    """Read `{file: [[onset, offset, label], ...]}` and settle the edge cases.

    Events are clipped to the file, silently: to 0 s, and to the duration where it is known. Three kinds are dropped
    with one warning each: events of zero length, events wholly outside their file, and exact repetitions.

    Args:
        events: rows in seconds; with `scored`, `[onset, offset, label, score]`.
        name: how messages call these events, "references" for example.
        evaluation_set: the files, classes and durations.
        scored: whether every row carries a score.

    Raises:
        ValueError: for a row of the wrong length, an unlisted class, a time or score that is not a finite number, or
            an offset before the onset.
    """
    rows = [
        (file_index, *_read_row(row, f"{name}[{file!r}]", evaluation_set.classes, scored))
        for file_index, file in enumerate(evaluation_set.files)
        for row in events[file]
    ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    table = EventTable(
        columns[0].astype(np.int64),
        columns[1].astype(np.int64),
        to_microseconds(columns[2]),
        to_microseconds(columns[3]),
        columns[4],
    )
    table = _drop(table, table.offset <= table.onset, name, "of zero length", evaluation_set)
    table = _clip_to_files(table, name, evaluation_set)
    return _drop(table, _is_repetition(table), name, "given twice", evaluation_set)


def _read_row(row: Sequence[Any], place: str, classes: list[str], scored: bool) -> tuple[int, float, float, float]:
    fields = ["onset", "offset", "label", "score"] if scored else ["onset", "offset", "label"]
    if isinstance(row, (str, Mapping)) or len(row) != len(fields):
        raise ValueError(f"{place} must hold rows of [{', '.join(fields)}], got {row!r}; rewrite the row in that form")
    label = row[2]
    if label not in classes:
        raise ValueError(f"{place} has an event of the unlisted class {label!r}; add it to classes or remove the event")
    try:
        onset, offset, score = float(row[0]), float(row[1]), float(row[3]) if scored else 0.0
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place} must hold times and scores as numbers, got {list(row)!r}; convert them") from error
    if not all(math.isfinite(value) for value in (onset, offset, score)):
        raise ValueError(f"{place} must hold finite times and scores, got {list(row)!r}; remove or repair the event")
    if offset < onset:
        raise ValueError(f"{place} must have offset >= onset, got {list(row)!r}; swap or correct the times")
    return classes.index(label), onset, offset, score


def _clip_to_files(table: EventTable, name: str, evaluation_set: EvaluationSet) -> EventTable:
    outside = table.offset <= 0
    if evaluation_set.durations is not None:
        outside |= table.onset >= evaluation_set.durations[table.file]
    table = _drop(table, outside, name, "wholly outside their file", evaluation_set)
    onset, offset = np.maximum(table.onset, 0), table.offset
    if evaluation_set.durations is not None:
        offset = np.minimum(offset, evaluation_set.durations[table.file])
    return EventTable(table.file, table.label, onset, offset, table.score)


def _is_repetition(table: EventTable) -> np.ndarray:
    columns = np.stack([table.file, table.label, table.onset, table.offset, table.score])
    _, first_rows = np.unique(columns, axis=1, return_index=True)
    repeated = np.ones(len(table.file), dtype=bool)
    repeated[first_rows] = False
    return repeated


def _drop(table: EventTable, rows: np.ndarray, name: str, fault: str, evaluation_set: EvaluationSet) -> EventTable:
    if not rows.any():
        return table
    example = _describe(table, int(np.flatnonzero(rows)[0]), evaluation_set)
    message = f"{name}: dropped {int(rows.sum())} event(s) {fault}, the first is {example}; remove them from the input"
    warnings.warn(message, stacklevel=4)
    return table.select(~rows)


def _describe(table: EventTable, row: int, evaluation_set: EvaluationSet) -> str:
    onset_s = table.onset[row] / MICROSECONDS_PER_SECOND
    offset_s = table.offset[row] / MICROSECONDS_PER_SECOND
    label = evaluation_set.classes[table.label[row]]
    return f"[{onset_s:g}, {offset_s:g}, {label!r}] in file {evaluation_set.files[table.file[row]]!r}"


def check_no_overlap(table: EventTable, name: str, evaluation_set: EvaluationSet) -> None:
    """Check that no two events of one class overlap in one file; events that touch are two events.

    Raises:
        ValueError: naming the first pair that overlaps.
    """
    order = np.lexsort((table.onset, table.label, table.file))
    ordered = table.select(order)
    same = (ordered.file[1:] == ordered.file[:-1]) & (ordered.label[1:] == ordered.label[:-1])
    overlaps = np.flatnonzero(same & (ordered.onset[1:] < ordered.offset[:-1]))
    if len(overlaps) > 0:
        first, second = (_describe(ordered, int(overlaps[0]) + step, evaluation_set) for step in (0, 1))
        raise ValueError(
            f"{name} of one class must not overlap where intersections are summed, got {first} and {second}; "
            "merge them into one event"
        )


def warn_of_absent_classes(num_references: np.ndarray, classes: list[str]) -> None:
    """Warn once of the classes that have no reference event: (classes,) reference counts in."""
    absent = [name for name, count in zip(classes, num_references, strict=True) if count == 0]
    if len(absent) == len(classes):
        warnings.warn("references hold no event at all: every score is nan; check the references", stacklevel=4)
    elif absent:
        warnings.warn(
            f"classes without any reference event are nan and left out of the means over classes: {absent}; "
            "remove them from classes or add references",
            stacklevel=4,
        )
