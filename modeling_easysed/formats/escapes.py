"""Reversible escapes for text in formats that have no quoting of their own.

Only what a format would break at is percent-encoded, and a percent sign only where it would be taken for such a code:
`C:\\new.wav` and `100%.wav` stay as they are, in files of this package and in those of other programs."""

import re
from functools import lru_cache
from urllib.parse import quote

NO_REASONS = r"\[]"  # an empty list where an empty cell would mean None
NULL_REASONS = r"\N"  # None where an empty cell would mean an empty list
_EMPTY_REASON = r"\e"


@lru_cache
def _codes(reserved: str) -> tuple[dict[str, str], re.Pattern[str], re.Pattern[str]]:
    """Code to character, what to escape (the codes themselves too), and what to unescape."""
    codes = {quote(char, safe=""): char for char in f"{reserved}%"}
    written = "|".join(map(re.escape, codes))
    return codes, re.compile(f"[{re.escape(reserved)}]|{written}"), re.compile(written)


def escape(text: str, reserved: str) -> str:
    """Percent-encodes the characters of `reserved`; `unescape` with the same `reserved` gives `text` back."""
    _, pattern, _ = _codes(reserved)
    return pattern.sub(lambda match: quote(match[0], safe="") if len(match[0]) == 1 else f"%25{match[0][1:]}", text)


def unescape(text: str, reserved: str) -> str:
    """Undoes `escape`; percent signs that stand for nothing in `reserved` stay."""
    codes, _, pattern = _codes(reserved)
    return pattern.sub(lambda match: codes[match[0]], text)


def join_reasons(reasons: list[str] | None, decision: str | None) -> str:
    """Reasons as one cell, `short; faint`, with a backslash before a `;` or backslash inside a reason.

    An empty cell is an empty list for an event with a decision and None for one without, as detection gives them; the
    two other cases have marks of their own.
    """
    if reasons is None:
        return "" if decision is None else NULL_REASONS
    if not reasons:
        return NO_REASONS if decision is None else ""
    return "; ".join(re.sub(r"([\\;])", r"\\\1", reason) if reason else _EMPTY_REASON for reason in reasons)


def split_reasons(cell: str, decision: str | None) -> list[str] | None:
    """Undoes `join_reasons`."""
    if cell == "":
        return None if decision is None else []
    if cell in (NO_REASONS, NULL_REASONS):
        return [] if cell == NO_REASONS else None
    parts = [""]
    for token in re.findall(r"\\.|; |.", cell, flags=re.DOTALL):
        if token == "; ":
            parts.append("")
        elif token == _EMPTY_REASON:
            continue
        else:
            parts[-1] += token[1:] if len(token) == 2 else token
    return parts
