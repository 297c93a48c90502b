"""What is known of a recording before it is decoded: one row, whatever layout it was read from.

A row that cannot be used is kept with its `problems`, so that whoever decodes can name it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Audio, Dataset, Features, List, Value
from recording_splits import group_of

NO_TARGET_NAMES = ("background", "none", "_background")  # labels and folders of sounds of no target class
END_TOLERANCE_S = 0.1  # offsets are rounded, and lossy codecs change a recording's length a little
ATTRIBUTION = ("author", "license", "source_url")

Row = dict[str, Any]
RawEvent = tuple[str, Any]  # where it stands, and what stands there: a mapping with onset, offset and label

EVENT_FEATURES = {"where": Value("string"), "onset": Value("float64"), "offset": Value("float64")}
FEATURES = Features(
    {
        "file_name": Value("string"),
        "where": Value("string"),
        "audio": Value("string"),
        "label": Value("string"),
        "events": List({**EVENT_FEATURES, "label": Value("string")}),
        "problems": List(Value("string")),
        "group": Value("string"),
        **{name: Value("string") for name in ATTRIBUTION},
    }
)


def recording_row(file_name: str, audio: Any, fields: Mapping[str, Any], where: str) -> Row:
    """One row.

    Args:
        file_name: the name under which the recording is reported, below the data's folder.
        audio: its path, or `{"path": ..., "bytes": ...}`.
        fields: what is said of it: `events` (a list of onset, offset in seconds and label), else `labels` or `label`;
            author, license, source_url; a column that `group_of` knows.
        where: the place of the statement, e.g. "metadata.csv line 3".

    Returns:
        `events` is None for a clip and `label` None for a sound of no target class; `problems` says what is wrong.
    """
    label, events, problems = None, None, []
    if fields.get("events") is not None:
        events, problems = read_events(numbered_events(fields["events"], where))
    else:
        label, problem = read_label(fields.get("label" if fields.get("labels") is None else "labels"), where)
        problems = [] if problem is None else [problem]
    return {
        "file_name": file_name,
        "where": where,
        "audio": audio,
        "label": label,
        "events": events,
        "problems": problems,
        "group": group_of(file_name, fields),
        **{name: text(fields.get(name)) for name in ATTRIBUTION},
    }


def as_dataset(rows: Sequence[Row]) -> Dataset:
    """Rows with paths as a Dataset with an undecoded `audio` column."""
    return Dataset.from_list(list(rows), features=FEATURES).cast_column("audio", Audio(decode=False))


def evenly_spaced(num_rows: int, limit: int | None) -> list[int]:
    """At most `limit` of the row numbers, spread over all: rows are often sorted by class."""
    if limit is None or limit >= num_rows:
        return list(range(num_rows))
    return [index * num_rows // limit for index in range(limit)]


def text(value: Any) -> str:
    """A cell as stripped text, "" for nothing."""
    return "" if value is None else str(value).strip()


def read_label(value: Any, where: str) -> tuple[str | None, str | None]:
    """The label of a clip and what is wrong with it.

    Args:
        value: a name or a list of names; an empty list, or one of `NO_TARGET_NAMES`, is a sound of no target class.
        where: the place of the statement.
    """
    if isinstance(value, (list, tuple)):
        names = sorted({text(name) for name in value})
        if len(names) > 1:
            return None, f"{where}: a clip is one sound, this one has the labels {', '.join(names)}: give it events"
        value = names[0] if names else NO_TARGET_NAMES[0]
    label = text(value)
    if label == "":
        return None, f"{where}: no label (a sound of no target class has the label {NO_TARGET_NAMES[0]})"
    return (None if label.lower() in NO_TARGET_NAMES else label), None


def numbered_events(events: Any, where: str) -> list[RawEvent]:
    """The events of one statement with their places; columns of equal length become rows."""
    if isinstance(events, Mapping):
        events = [dict(zip(events, values, strict=False)) for values in zip(*events.values(), strict=False)]
    if not isinstance(events, (list, tuple)):
        return [(where, events)]
    return [(f"{where}, event {number}", event) for number, event in enumerate(events, start=1)]


def read_events(raw_events: Sequence[RawEvent]) -> tuple[list[dict[str, Any]], list[str]]:
    """Events with their times as numbers, and what is wrong with those left out.

    An event labelled with one of `NO_TARGET_NAMES` is none, without being wrong.
    """
    events, problems = [], []
    for where, raw in raw_events:
        if not isinstance(raw, Mapping):
            problems.append(f"{where}: an event must have onset, offset and label, got {raw!r}")
            continue
        label = text(raw.get("label"))
        try:
            onset, offset = float(raw.get("onset")), float(raw.get("offset"))
        except (TypeError, ValueError):
            onset = offset = math.nan
        if not (math.isfinite(onset) and math.isfinite(offset)):
            got = f"{raw.get('onset')!r} and {raw.get('offset')!r}"
            problems.append(f"{where}: onset and offset must be seconds, got {got}")
        elif label == "":
            problems.append(f"{where}: the event at {onset:g} s has no label")
        elif label.lower() not in NO_TARGET_NAMES:
            events.append({"where": where, "onset": onset, "offset": offset, "label": label})
    return events, problems


def events_within(
    events: Sequence[Mapping[str, Any]], duration_s: float
) -> tuple[list[tuple[float, float, str]], list[str]]:
    """Events that fit a recording of this length, in order of onset, and what is wrong with those left out.

    An offset up to `END_TOLERANCE_S` beyond the end is moved to the end.
    """
    kept, problems = [], []
    for event in events:
        onset, offset = event["onset"], event["offset"]
        end = min(offset, duration_s)
        if not 0 <= onset < offset:
            problem = f"an event must have 0 <= onset < offset, got {onset:g} and {offset:g}"
        elif offset > duration_s + END_TOLERANCE_S or onset >= end:
            problem = f"the event from {onset:g} to {offset:g} s ends after the recording's {duration_s:.2f} s"
        else:
            kept.append((onset, end, event["label"]))
            continue
        problems.append(f"{event['where']}: {problem}")
    return sorted(kept), problems
