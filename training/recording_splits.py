"""Splits that keep a recording whole: clips cut from one recording are nearly the same sound, so a model that trained
on some of them would be tested on what it has seen."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

GROUP_COLUMNS = ("source", "recording", "freesound_id", "group")
# What a name ends in when it is one take or slice of a recording: a word with its number, a lone letter (A, B, ...) or
# a copy's number in brackets.
NAMED_PART = re.compile(r"(?:[-_ ]+(?:take|part|slice|segment|seg|chunk)[-_ ]*\d+|[-_ ]+[A-Za-z]|\s*\(\d+\))$", re.I)
NUMBERED_PART = re.compile(r"[-_ ]+\d+$")


def group_of(file_name: str, row: Mapping[str, object]) -> str:
    """The recording that a clip comes from.

    The first of the columns source, recording, freesound_id and group that has a value. Without one, the file name's
    stem without one trailing part: "5-151085-A" is of "5-151085"; "rec12_03", "rec12-003" and "rec12 (2)" of "rec12".
    A number alone is a part only behind a name that has a digit of its own: "dog_01" and "dog_02" are two dogs, where
    one group for the whole class could not be split.

    Args:
        file_name: name or path of the clip, "/" between folders.
        row: what the metadata says of the clip, column name to value; may be empty.
    """
    for column in GROUP_COLUMNS:
        value = row.get(column)
        if value is not None and str(value).strip() != "":
            return str(value).strip()
    stem = PurePosixPath(file_name).stem
    named = NAMED_PART.sub("", stem)
    if named not in ("", stem):
        return named
    numbered = NUMBERED_PART.sub("", stem)
    return numbered if any(character.isdigit() for character in numbered) else stem


def split_by_recording(groups: Sequence[str], shares: Sequence[float], seed: int) -> list[list[int]]:
    """Parts of about the given shares, with every recording in one part.

    The largest recordings are placed first, each where most is missing; the order of equally large ones is drawn. No
    part is empty. Where every part's share is at least as large as the largest recording, each part ends less than
    one such recording away from its share.

    Args:
        groups: the recording of every clip, as from `group_of`.
        shares: relative sizes of the parts, e.g. (0.8, 0.2) or (4, 1).
        seed: of the draw; the same seed gives the same parts.

    Returns:
        For each share the indices into `groups`, ascending; together each index once.

    Raises:
        ValueError: for no shares, a share that is not a positive number, or fewer recordings than parts.
    """
    if len(shares) == 0 or not all(math.isfinite(share) and share > 0 for share in shares):
        raise ValueError(f"shares must be positive numbers, one for each part, got {list(shares)}")
    sizes = Counter(groups)
    if len(sizes) < len(shares):
        raise ValueError(
            f"{len(shares)} parts need at least as many recordings, got {len(sizes)} in {len(groups)} clips: add "
            "recordings, or ask for fewer parts"
        )
    names = sorted(sizes)
    drawn = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    missing = np.array(shares, dtype=float) / sum(shares) * len(groups)
    part_of: dict[str, int] = {}
    for name in sorted(drawn, key=lambda name: -sizes[name]):
        empty = set(range(len(shares))) - set(part_of.values())
        open_parts = sorted(empty) if len(names) - len(part_of) == len(empty) else range(len(shares))
        part_of[name] = max(open_parts, key=lambda part: missing[part])
        missing[part_of[name]] -= sizes[name]
    return [[index for index, name in enumerate(groups) if part_of[name] == part] for part in range(len(shares))]


def folds_by_recording(groups: Sequence[str], num_folds: int, seed: int) -> list[list[int]]:
    """Folds for cross-validation, with every recording in one fold; see `split_by_recording`.

    Raises:
        ValueError: for fewer than two folds, or fewer recordings than folds.
    """
    if num_folds < 2:
        raise ValueError(f"num_folds must be at least 2, got {num_folds}")
    return split_by_recording(groups, [1.0] * num_folds, seed)
