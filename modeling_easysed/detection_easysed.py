"""What detection returns: events, the frame probabilities behind them, warnings and a receipt.

Nothing here is computed by a network: plain dataclasses that turn into JSON, rows, a DataFrame or a picture."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

TIME_DECIMALS = 6  # microseconds; onsets, offsets and the duration are rounded alike, so none passes the file's end
UNCERTAINTY_PARTS = ("total", "aleatoric", "epistemic")
JUDGED_FIELDS = (  # numbers of an event that calibration gives
    "confidence",
    "confidence_low",
    "confidence_high",
    "onset_low",
    "onset_high",
    "offset_low",
    "offset_high",
    "unfamiliarity",
)
NO_CALIBRATION = (
    "not calibrated: this checkpoint has no calibration, so confidence, intervals, decision and reasons are null; "
    "score is the model's own"
)


@dataclass
class Event:
    """One sound event. Times in seconds from the start of the file; what is None was not computed, or the format
    of the file that the event was read from does not carry it.

    Attributes:
        onset, offset: seconds, 0 <= onset < offset <= duration.
        label: class name.
        score: the model's own score in [0, 1]; None only for events of a file without it.
        confidence: calibrated probability that the event is right, with its 90 % interval `confidence_low` to `_high`.
        onset_low, onset_high, offset_low, offset_high: 90 % intervals of the borders, seconds.
        uncertainty: {"total", "aleatoric", "epistemic"} in nats.
        decision: "accept", "review" or "reject".
        reasons: what speaks against the event, in plain words; empty for an event without doubt.
        exit: exit of the network that found the event, 1 = shallowest.
        unfamiliarity: distance of its embedding from training sounds, in deviations from target events' median.
    """

    onset: float
    offset: float
    label: str
    score: float | None
    confidence: float | None = None
    confidence_low: float | None = None
    confidence_high: float | None = None
    onset_low: float | None = None
    onset_high: float | None = None
    offset_low: float | None = None
    offset_high: float | None = None
    uncertainty: dict[str, float] | None = None
    decision: str | None = None
    reasons: list[str] | None = None
    exit: int | None = None
    unfamiliarity: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON holds it: numbers rounded to microseconds and millionths."""
        return {name: _plain(getattr(self, name)) for name in _EVENT_FIELDS}

    def to_row(self) -> dict[str, Any]:
        """The event as one flat row of `ROW_COLUMNS` without the file: uncertainty in three columns, reasons joined."""
        row = self.to_dict()
        parts = {} if row["uncertainty"] is None else row["uncertainty"]
        row["reasons"] = None if row["reasons"] is None else "; ".join(row["reasons"])
        flat = row | {f"uncertainty_{part}": parts.get(part) for part in UNCERTAINTY_PARTS}
        return {name: flat[name] for name in ROW_COLUMNS if name != "file"}


_EVENT_FIELDS = tuple(item.name for item in fields(Event))


def _row_columns() -> tuple[str, ...]:
    columns = ["file"]
    for name in _EVENT_FIELDS:
        columns += [f"uncertainty_{part}" for part in UNCERTAINTY_PARTS] if name == "uncertainty" else [name]
    return tuple(columns)


ROW_COLUMNS = _row_columns()  # file, onset, offset, label, score, ...: the columns of CSV, Parquet and DataFrames


@dataclass
class Detection:
    """All that one recording gave.

    Attributes:
        events: sorted by onset.
        frame_times: (frames,), seconds, the centre of every output frame.
        probabilities: (frames, classes), in [0, 1].
        labels: class names, one per column of `probabilities`.
        duration: seconds of the recording; None when read from a file that does not carry it.
        sampling_rate: Hz of the recording, before resampling; None as for `duration`.
        file: its path or name as given, None for an array.
        uncertainty: (frames, classes) in nats, None when not computed.
        warnings: sentences on the recording and on what is missing.
        receipt: model, revision, version, seed, exit, decoding, calibration: the same receipt and file give the same
            events.
        decision_rule: sentences on the goal, the thresholds and what is guaranteed.
        log_mel: (columns, mels), dB, a coarse picture of the recording for `plot`; None = no picture.
        mel_hz: (mels,), Hz, the centres of the bands of `log_mel`.
        envelope: (columns, 2), lowest and highest sample of equal parts of the recording, full scale 1, mono at the
            model's rate; None = no picture.
        spread: (frames, classes), standard deviation of the probability over all passes (or exits, or the closed form)
            and time shifts: how far the model's own answers lie apart. No calibrated interval. None where there is one
            answer. In a long recording, where a frame stands for many, that of the frame with the largest probability.
    """

    events: list[Event]
    frame_times: np.ndarray
    probabilities: np.ndarray
    labels: list[str]
    duration: float | None
    sampling_rate: int | None
    file: str | None = None
    uncertainty: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    receipt: dict[str, Any] = field(default_factory=dict)
    decision_rule: list[str] = field(default_factory=list)
    log_mel: np.ndarray | None = field(default=None, repr=False)
    envelope: np.ndarray | None = field(default=None, repr=False)
    spread: np.ndarray | None = field(default=None, repr=False)
    mel_hz: np.ndarray | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        name = "" if self.file is None else f"{self.file!r}, "
        events = ", ".join(f"{event.label} {event.onset:.2f}-{event.offset:.2f} s" for event in self.events[:5])
        more = f", ... {len(self.events)} in all" if len(self.events) > 5 else ""
        length = "" if self.duration is None else f"{self.duration:.2f} s, "
        return f"Detection({name}{length}events=[{events}{more}], warnings={self.warnings})"

    def to_dict(self) -> dict[str, Any]:
        """The detection as JSON holds it, without the frames."""
        return {
            "file": self.file,
            "duration": _plain(self.duration),
            "sampling_rate": self.sampling_rate,
            "events": [event.to_dict() for event in self.events],
            "warnings": list(self.warnings),
            "receipt": dict(self.receipt),
            "decision_rule": list(self.decision_rule),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """One JSON object; `indent=None` puts it on one line."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict of `ROW_COLUMNS` per event."""
        return [{"file": self.file, **event.to_row()} for event in self.events]

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with the columns `ROW_COLUMNS`, one row per event.

        Raises:
            ImportError: without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe needs pandas: pip install pandas") from error
        return pandas.DataFrame(self.to_rows(), columns=list(ROW_COLUMNS))

    def plot(self, path: str | Path | None = None, theme: str = "light") -> Any:
        """Draws waveform, log-mel frames and a lane for every class that comes near sounding, on one time axis.

        A lane holds the class's probability, 0 to 1, in a band of 1.645 times its `spread` to either side (cut at 0 and
        1), and below it its events: accepted ones solid, those for review pale and hatched, rejected ones hollow, with
        their confidence where it fits and the 90 % intervals of their borders.

        Args:
            path: where to save the picture (.png, .pdf, .svg); None = only return it.
            theme: "light" or "dark".

        Returns:
            The matplotlib Figure, not shown on any screen.

        Raises:
            ImportError: without matplotlib.
            ValueError: a suffix that matplotlib cannot write; an unknown theme; a detection without frames, as files of
                events give it.
        """
        if len(self.frame_times) == 0:
            raise ValueError("plot needs the frames, which no file of events holds: detect the recording again")
        from .plot_easysed import plot_detection

        return plot_detection(self, path, theme)


def _plain(value: Any) -> Any:
    """Floats, also those of numpy and inside dicts, rounded to `TIME_DECIMALS`; everything else as it is."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (float, np.floating)):
        return round(float(value), TIME_DECIMALS)
    return int(value) if isinstance(value, np.integer) else value


__all__ = ["Detection", "Event", "NO_CALIBRATION", "ROW_COLUMNS"]
