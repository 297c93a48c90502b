"""Which candidates are right, and how an event of the truth that one found lies beside it.

A candidate is right when at least half of it lies on events of its class and it alone covers at least half of one of
them (intersection criterion, DTC = GTC = 0.5; Bilen et al. 2020, section 3). No two candidates of a class overlap, so
no event is found twice."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from modeling_easysed.decoding_easysed import Box

DTC = GTC = 0.5
ROUNDING = 1e-6


class Truth(NamedTuple):
    """One candidate against the references: right or not; onset and offset of the event that it found, else NaN."""

    right: bool
    onset: float
    offset: float


def judge_boxes(boxes: Sequence[Box], references: Sequence[Sequence], classes: Sequence[str]) -> list[Truth]:
    """Truth of every candidate of one recording.

    Args:
        boxes: candidates.
        references: [[onset, offset, label], ...], seconds.
        classes: names by class index.
    """
    truths = []
    for box in boxes:
        own = [(onset, offset) for onset, offset, label in references if label == classes[box.class_index]]
        overlaps = [max(0.0, min(box.offset, offset) - max(box.onset, onset)) for onset, offset in own]
        shares = [overlap / (offset - onset) for overlap, (onset, offset) in zip(overlaps, own, strict=True)]
        is_relevant = sum(overlaps) >= DTC * (box.offset - box.onset) - ROUNDING
        if own and is_relevant and max(shares) >= GTC - ROUNDING:
            truths.append(Truth(True, *own[int(np.argmax(shares))]))
        else:
            truths.append(Truth(False, np.nan, np.nan))
    return truths


__all__ = ["Truth", "judge_boxes"]
