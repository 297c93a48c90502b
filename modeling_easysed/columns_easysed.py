"""Hours of rows as a few thousand columns: each the largest of its neighbours, so that a short event stays visible."""

import numpy as np

ENVELOPE_COLUMNS = 2000
BLOCK_SAMPLES = 2**20
SHORT_LINE = 512


class ColumnMaximum:
    """The largest of every `step` neighbouring rows, without keeping the rows."""

    def __init__(self, step: int) -> None:
        self.step, self.num_rows = step, 0
        self._columns: list[list[np.ndarray]] = []
        self._rest: list[np.ndarray] | None = None

    def add(self, rows: np.ndarray, first: int, beside: np.ndarray | None = None) -> None:
        """Rows (rows, values) from number `first` on; those that were seen before are left out.

        Of `beside`, of the same shape, the values are kept that stand where the largest of the rows stand.
        """
        new = [one[self.num_rows - first :] for one in ((rows,) if beside is None else (rows, beside))]
        self.num_rows += len(new[0])
        if self._rest is not None:
            new = [np.concatenate(pair) for pair in zip(self._rest, new, strict=True)]
        whole = len(new[0]) // self.step * self.step
        if whole > 0:
            self._columns.append(largest_of([one[:whole] for one in new], self.step))
        self._rest = [one[whole:].copy() for one in new]

    def results(self) -> list[np.ndarray]:
        """(columns, values) of the rows, and of what stood beside them."""
        rest = [] if self._rest is None or len(self._rest[0]) == 0 else [largest_of(self._rest, self.step)]
        return [np.concatenate(parts) for parts in zip(*self._columns, *rest, strict=True)]

    def result(self) -> np.ndarray:
        """(columns, values) of the rows."""
        return self.results()[0]


def largest_of(arrays: list[np.ndarray], step: int) -> list[np.ndarray]:
    """Of arrays (rows, values) the values where the first is largest in every `step` rows, (columns, values) each."""
    missing = -len(arrays[0]) % step
    shaped = [np.pad(one, ((0, missing), (0, 0)), mode="edge").reshape(-1, step, one.shape[1]) for one in arrays]
    if len(shaped) == 1:
        return [shaped[0].max(axis=1)]
    places = shaped[0].argmax(axis=1)[:, None]
    # (columns, 1, values)
    return [np.take_along_axis(one, places, axis=1)[:, 0] for one in shaped]


class Envelope:
    """Lowest and highest sample of every `step` samples, without keeping the samples."""

    def __init__(self, num_samples: int) -> None:
        """`num_samples`: how many will come, more or less; they become `ENVELOPE_COLUMNS` columns at most."""
        self.step = max(1, -(-num_samples // ENVELOPE_COLUMNS))
        self._columns: list[np.ndarray] = []
        self._rest = np.zeros(0, np.float32)

    def add(self, samples: np.ndarray) -> None:
        """The next samples, (samples,)."""
        for start in range(0, len(samples), BLOCK_SAMPLES):
            block = np.concatenate([self._rest, samples[start : start + BLOCK_SAMPLES]])
            whole = len(block) // self.step * self.step
            self._columns.append(_extremes(block[:whole].reshape(-1, self.step)))
            self._rest = block[whole:]

    def result(self) -> np.ndarray:
        """(columns, 2)."""
        rest = [_extremes(self._rest[None])] if len(self._rest) > 0 else []
        return np.concatenate([*self._columns, *rest])


def _extremes(lines: np.ndarray) -> np.ndarray:
    """(columns, samples) to (columns, 2)."""
    if lines.shape[1] < SHORT_LINE:  # many columns side by side are compared faster than many short lines
        across = np.ascontiguousarray(lines.T)
        return np.stack([across.min(axis=0), across.max(axis=0)], axis=1)
    return np.stack([lines.min(axis=1), lines.max(axis=1)], axis=1)


__all__ = ["ColumnMaximum", "Envelope", "largest_of"]
