"""Recordings as `evaluate` hands them over, one example each, and as the metrics take them."""

import reprlib
from collections.abc import Sequence
from typing import Any


def read_events(examples: Any, name: str, fields: Sequence[str]) -> list[list[dict]]:
    """The given fields of every event alone, so that a detection's events will do as they are.

    Args:
        examples: per recording a list of dicts.
        name: what the caller calls them.
        fields: e.g. onset, offset, label.

    Raises:
        ValueError: when an example is no list of dicts with these fields.
    """
    try:
        return [[{field: event[field] for field in fields} for event in events] for events in examples]
    except (IndexError, KeyError, TypeError):
        raise ValueError(
            f"{name} must be one list of events per recording, each a dict with {', '.join(fields)}, "
            f"got {reprlib.repr(examples)}; give [] for a recording without events"
        ) from None


def by_number(examples: Sequence[Sequence[dict]], fields: Sequence[str]) -> dict[int, list[list]]:
    """Recordings by their number, events as lists of the fields in this order, which Arrow may have changed."""
    return {number: [[event[field] for field in fields] for event in events] for number, events in enumerate(examples)}


__all__ = ["by_number", "read_events"]
