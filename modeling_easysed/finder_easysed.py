"""Events on a time line that grows: each one once, as soon as its class has been silent for a while.

    |  piece  |  silence  |  piece of a minute  :  its next part  |  silence ...
                                                ^ cut at the faintest point of the second half minute

What lies between two silences of a class depends on nothing beyond them (see decoding_easysed), so a piece is decoded
when the silence behind it is known. A class that is never silent is cut into parts, and an event that touches a cut on
both sides is one event."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .decoding_easysed import Box, candidate_boxes, class_parameters, quiet_frames, shortest_silence_s
from .evidence_easysed import FLOOR_QUANTILE, Evidence, gather_evidence
from .listening_easysed import Heard

LONGEST_PIECE_S = 60.0
MARGIN_S = 0.75  # around an event, for the places where its borders lie in single samples
FLOOR_S, FLOOR_STEP = 60.0, 4  # the recent past, and every so many of its log-mel frames
PADDING_POINTS = 8
MEANS = (  # of Evidence, weighted by duration where parts are joined
    "exit_spread",
    "sample_spread",
    "shift_spread",
    "contrast_db",
    "total",
    "aleatoric",
    "epistemic",
    "embedding",
)


class FloorMeter:
    """What every mel band holds when nothing sounds, over the last `FLOOR_S` seconds.

    Args:
        hop_s: seconds between log-mel frames.
        mel_std: dB of one unit of the normalised frames (mels,), or None = 1.
    """

    def __init__(self, hop_s: float, mel_std: Sequence[float] | None) -> None:
        self.scale = 1.0 if mel_std is None else np.asarray(mel_std, np.float32)
        self.num_kept = round(FLOOR_S / hop_s / FLOOR_STEP)
        self.kept: np.ndarray | None = None
        self._floor_db: np.ndarray | None = None
        self._stop = 0  # number after the newest frame's that was seen

    def add(self, log_mel: np.ndarray, first: int) -> None:
        """Frames (frames, mels) from number `first` on, some of which may have been seen."""
        new = log_mel[max(0, self._stop - first) :: FLOOR_STEP]
        both = new if self.kept is None else np.concatenate([self.kept, new])
        self.kept, self._stop, self._floor_db = both[-self.num_kept :], first + len(log_mel), None

    def floor_db(self) -> np.ndarray:
        """(mels,) dB."""
        if self._floor_db is None:
            self._floor_db = np.quantile(self.kept, FLOOR_QUANTILE, axis=0) * self.scale
        return self._floor_db


class EventFinder:
    """Candidate events of all classes as they end.

    Args:
        decoding: parameters of one exit, see `decode`.
        floors: (classes,) or one for all: candidates must score higher.
        extractor: the front end that the frames came from.
    """

    def __init__(self, decoding: dict[str, Any] | None, floors: float | np.ndarray, extractor: Any) -> None:
        self.decoding, self.floors, self.extractor = decoding, floors, extractor
        self.starts: np.ndarray | None = None  # (classes,) point at which each class's present piece begins
        self.open: dict[int, Evidence] = {}  # by class: the event that reaches up to the last cut
        hop_s = extractor.hop_length_samples / extractor.sampling_rate
        self.floor = FloorMeter(hop_s, extractor.mel_std)

    def update(self, heard: Heard, duration_s: float | None = None) -> list[Evidence]:
        """Events that are over by now.

        Args:
            heard: after new frames were added to it; the caller then lets it forget what comes before `needed_from`.
            duration_s: of the recording when it is over, so that everything ends; None = it goes on.
        """
        if self.starts is None:
            self._set_up(heard)
        stride = heard.recording.frame_samples // heard.recording.hop_samples
        self.floor.add(heard.recording.log_mel, heard.first * stride)
        values = heard.raw
        quiet = quiet_frames(values, self.point_s, self.silence_s)
        found = []
        for index in range(values.shape[1]):
            for start, stop, is_cut in self._pieces(values[:, index], quiet[:, index], index, heard, duration_s):
                found += self._events(heard, index, start, stop, is_cut, duration_s)
        return sorted(found, key=lambda one: one.box)

    def _set_up(self, heard: Heard) -> None:
        num_classes = heard.raw.shape[1]
        self.starts = np.zeros(num_classes, dtype=np.int64)
        self.parameters = class_parameters(self.decoding, num_classes)
        self.floors = np.broadcast_to(self.floors, num_classes)
        self.point_s = heard.point_samples / self.extractor.sampling_rate
        self.silence_s = shortest_silence_s(self.decoding, num_classes)
        self.needed = np.ceil(self.silence_s / self.point_s - 1e-6).astype(np.int64)

    def longest_silence_s(self, num_classes: int) -> float:
        """Seconds of silence after which the events of any class are over."""
        return float(shortest_silence_s(self.decoding, num_classes).max())

    def needed_from(self, heard: Heard) -> int:
        """The number of the oldest output frame that is still of use."""
        oldest = int(self.starts.min()) - round(MARGIN_S / self.point_s)
        return max(0, oldest) // heard.points_per_frame

    def _pieces(
        self, values: np.ndarray, quiet: np.ndarray, index: int, heard: Heard, duration_s: float | None
    ) -> list[tuple[int, int, bool]]:
        """Pieces of a class that are complete, (start, stop, whether its end is a cut), points counted from 0."""
        origin, known, longest = heard.first_point, heard.num_points, round(LONGEST_PIECE_S / self.point_s)
        own = quiet[self.starts[index] - origin :]
        changes = np.flatnonzero(np.diff(np.concatenate([[True], own, [True]]))) + self.starts[index]
        complete = []
        for start, stop in changes.reshape(-1, 2).tolist():
            while stop - start >= longest:
                late = values[start + longest // 2 - origin : start + longest - origin]
                cut = start + longest // 2 + int(late.argmin())
                complete.append((start, cut, True))
                start = cut
            if stop == known and duration_s is None:
                self.starts[index] = start
                return complete
            complete.append((start, stop, False))
        self.starts[index] = max(self.starts[index], known - self.needed[index])
        return complete

    def _events(
        self, heard: Heard, index: int, start: int, stop: int, is_cut: bool, duration_s: float | None
    ) -> list[Evidence]:
        """Events of one piece, without one that goes on behind a cut at its end."""
        begins_at_cut = index in self.open
        boxes = [box for box in self._boxes(heard, index, start, stop, duration_s) if box.score > self.floors[index]]
        events = self._evidence(heard, boxes)
        if begins_at_cut:
            part, edge = self.open.pop(index), (start - 0.5) * self.point_s
            if events and events[0].box.onset <= edge + 1e-9:
                events[0] = joined(part, events[0])
            else:
                events.insert(0, part)
        if is_cut and events and events[-1].box.offset >= (stop - 0.5) * self.point_s - 1e-9:
            self.open[index] = events.pop()
        return events

    def _boxes(self, heard: Heard, index: int, start: int, stop: int, duration_s: float | None) -> list[Box]:
        """Candidates of one class between two points, with nothing beside them."""
        low, high = max(start - PADDING_POINTS, heard.first_point), min(stop + PADDING_POINTS, heard.num_points)
        values = np.zeros((high - low, 1))
        inside = slice(start - heard.first_point, stop - heard.first_point)
        values[start - low : stop - low, 0] = heard.raw[inside, index]
        borders = (np.arange(low, high + 1) - 0.5) * self.point_s
        if low == 0:
            borders[0] = 0.0
        if duration_s is not None and high == heard.num_points:
            borders[-1] = duration_s
        method = {} if self.decoding is None or "method" not in self.decoding else {"method": self.decoding["method"]}
        own = {**method, "default": {name: float(column[index]) for name, column in self.parameters.items()}}
        return [box._replace(class_index=index) for box in candidate_boxes(values, borders, own)]

    def _evidence(self, heard: Heard, boxes: list[Box]) -> list[Evidence]:
        origin_s = heard.first * heard.recording.frame_samples / self.extractor.sampling_rate
        moved = [box._replace(onset=box.onset - origin_s, offset=box.offset - origin_s) for box in boxes]
        rate, mel_std = self.extractor.sampling_rate, self.extractor.mel_std
        found = gather_evidence(moved, heard.recording, heard.raw, heard.line, rate, mel_std, self.floor.floor_db())
        return [replace(one, box=box) for one, box in zip(found, boxes, strict=True)]

    def sounding(self, heard: Heard) -> list[Evidence]:
        """Candidates that are not over, as they would be if all fell silent now."""
        if self.starts is None:
            return []
        found = []
        for index, start in enumerate(self.starts.tolist()):
            boxes = self._boxes(heard, index, start, heard.num_points, None)
            end_s = (heard.num_points - 1 - self.needed[index]) * self.point_s
            boxes = [box for box in boxes if box.score > self.floors[index] and box.offset > end_s]
            events = self._evidence(heard, boxes)
            if events and index in self.open and events[0].box.onset <= (start - 0.5) * self.point_s + 1e-9:
                events[0] = joined(self.open[index], events[0])
            found += events
        return sorted(found, key=lambda one: one.box)


def joined(first: Evidence, second: Evidence) -> Evidence:
    """Two parts of one event: borders of either end, means weighted by duration."""
    durations = [one.box.offset - one.box.onset for one in (first, second)]
    share = durations[1] / sum(durations)
    means = {name: (1 - share) * getattr(first, name) + share * getattr(second, name) for name in MEANS}
    score = (1 - share) * first.box.score + share * second.box.score
    return replace(
        first,
        box=Box(first.box.onset, second.box.offset, first.box.class_index, score),
        exit_index=first.exit_index if share < 0.5 else second.exit_index,
        weakest_exit=min(first.weakest_exit, second.weakest_exit),
        offset_spread=second.offset_spread,
        offset_rise=second.offset_rise,
        overlap=max(first.overlap, second.overlap),
        **means,
    )


__all__ = ["EventFinder", "FloorMeter", "joined"]
