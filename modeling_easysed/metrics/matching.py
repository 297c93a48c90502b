"""Maximum one-to-one matching between references and detections."""

from collections import deque

import numpy as np


def maximum_matching(allowed: np.ndarray) -> np.ndarray:
    """Match as many rows with columns as possible, each at most once, along the allowed pairs.

    A greedy choice can lose a pair: with rows {a, b}, where a may take either column and b only the first, taking
    (a, first) leaves b alone. Augmenting paths undo such choices.

    Args:
        allowed: (rows, columns) boolean, True where the pair may be matched.

    Returns:
        (rows,) the column matched with each row, -1 for a row left alone.

    Source: Berge, Two theorems in graph theory, PNAS 1957 (a matching is maximum if no augmenting path remains).
    """
    num_rows, num_columns = allowed.shape
    neighbours = [np.flatnonzero(row).tolist() for row in allowed]
    column_of = [-1] * num_rows
    row_of = [-1] * num_columns
    for row in range(num_rows):
        _augment(row, neighbours, column_of, row_of)
    return np.array(column_of, dtype=np.int64)


def _augment(root: int, neighbours: list[list[int]], column_of: list[int], row_of: list[int]) -> None:
    """Search, breadth first, a path from the free row `root` to a free column, and flip it."""
    reached_from: dict[int, int] = {}
    queue = deque([root])
    while queue:
        row = queue.popleft()
        for column in neighbours[row]:
            if column in reached_from:
                continue
            reached_from[column] = row
            if row_of[column] < 0:
                _flip(column, reached_from, column_of, row_of)
                return
            queue.append(row_of[column])


def _flip(column: int, reached_from: dict[int, int], column_of: list[int], row_of: list[int]) -> None:
    """Walk back from the free column to the root and give each row on the way its new column."""
    while column >= 0:
        row = reached_from[column]
        previous = column_of[row]
        column_of[row], row_of[column] = column, row
        column = previous
