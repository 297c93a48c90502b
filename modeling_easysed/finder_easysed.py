"""Events on a time line that grows: each one once, as soon as its class has been silent for a while.

    |  piece  |  silence  |  piece of a minute  :  its next part  |  silence ...
                                                ^ cut at the faintest point of the second half minute

What lies between two silences of a class depends on nothing beyond them (see decoding_easysed), so a piece is decoded
when the silence behind it is known. A class that is never silent is cut into parts, and an event that touches a cut on
both sides is one event."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from .decoding_easysed import Box, candidate_boxes, class_parameters, quiet_frames, shortest_silence_s
from .evidence_easysed import FLOOR_QUANTILE, Evidence, gather_evidence, quantile_of_columns
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
            self._floor_db = quantile_of_columns(self.kept, FLOOR_QUANTILE) * self.scale
        return self._floor_db


class Piece(NamedTuple):
    """What is decoded at once of a class: points `start` .. `stop` - 1, and whether its end is a cut."""

    class_index: int
    start: int
    stop: int
    is_cut: bool


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
        pieces = [
            piece
            for index in range(values.shape[1])
            for piece in self._pieces(values[:, index], quiet[:, index], index, heard, duration_s)
        ]
        found = []
        for piece, events in zip(pieces, self._candidates(heard, pieces, duration_s), strict=True):
            found += self._ended(piece, events)
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
    ) -> list[Piece]:
        """Pieces of a class that are complete."""
        origin, known, longest = heard.first_point, heard.num_points, round(LONGEST_PIECE_S / self.point_s)
        own = quiet[self.starts[index] - origin :]
        changes = np.flatnonzero(np.diff(np.concatenate([[True], own, [True]]))) + self.starts[index]
        complete = []
        for start, stop in changes.reshape(-1, 2).tolist():
            while stop - start >= longest:
                late = values[start + longest // 2 - origin : start + longest - origin]
                cut = start + longest // 2 + int(late.argmin())
                complete.append(Piece(index, start, cut, True))
                start = cut
            if stop == known and duration_s is None:
                self.starts[index] = start
                return complete
            complete.append(Piece(index, start, stop, False))
        self.starts[index] = max(self.starts[index], known - self.needed[index])
        return complete

    def _ended(self, piece: Piece, events: list[Evidence]) -> list[Evidence]:
        """Events of one piece that are over: joined across a cut at its start, without one that reaches its end's."""
        index = piece.class_index
        if index in self.open:
            events = self._continued(piece, self.open.pop(index), events)
        if piece.is_cut and events and events[-1].box.offset >= (piece.stop - 0.5) * self.point_s - 1e-9:
            self.open[index] = events[-1]
            return events[:-1]
        return events

    def _continued(self, piece: Piece, part: Evidence, events: list[Evidence]) -> list[Evidence]:
        """The part before a cut at the piece's start and the events behind it, joined where they touch."""
        if events and events[0].box.onset <= (piece.start - 0.5) * self.point_s + 1e-9:
            return [joined(part, events[0]), *events[1:]]
        return [part, *events]

    def _candidates(
        self, heard: Heard, pieces: list[Piece], duration_s: float | None, ends_after_s: np.ndarray | None = None
    ) -> list[list[Evidence]]:
        """Candidates above their floors, piece by piece; all pieces are decoded and measured in one go.

        `ends_after_s`: (classes,), candidates that end before are left out; None = none are.
        """
        after_s = np.full(len(self.floors), -np.inf) if ends_after_s is None else ends_after_s
        boxes = [
            [box for box in own if box.score > self.floors[box.class_index] and box.offset > after_s[box.class_index]]
            for own in self._boxes(heard, pieces, duration_s)
        ]
        measured = iter(self._evidence(heard, [box for own in boxes for box in own]))
        return [list(islice(measured, len(own))) for own in boxes]

    def _boxes(self, heard: Heard, pieces: list[Piece], duration_s: float | None) -> list[list[Box]]:
        """Candidates of every piece: each is a column of its own, with nothing beside it."""
        if not pieces:
            return []
        low = max(min(piece.start for piece in pieces) - PADDING_POINTS, heard.first_point)
        high = min(max(piece.stop for piece in pieces) + PADDING_POINTS, heard.num_points)
        values, classes = np.zeros((high - low, len(pieces))), {}
        for column, (index, start, stop, _) in enumerate(pieces):
            inside = slice(start - heard.first_point, stop - heard.first_point)
            values[start - low : stop - low, column] = heard.raw[inside, index]
            classes[str(column)] = {name: float(own[index]) for name, own in self.parameters.items()}
        borders = (np.arange(low, high + 1) - 0.5) * self.point_s
        if low == 0:
            borders[0] = 0.0
        if duration_s is not None and high == heard.num_points:
            borders[-1] = duration_s
        method = {} if self.decoding is None or "method" not in self.decoding else {"method": self.decoding["method"]}
        found: list[list[Box]] = [[] for _ in pieces]
        for box in candidate_boxes(values, borders, {**method, "classes": classes}):
            found[box.class_index].append(box._replace(class_index=pieces[box.class_index].class_index))
        return found

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
        pieces = [Piece(index, start, heard.num_points, False) for index, start in enumerate(self.starts.tolist())]
        ends_s = (heard.num_points - 1 - self.needed) * self.point_s
        found = []
        for piece, events in zip(pieces, self._candidates(heard, pieces, None, ends_s), strict=True):
            if events and piece.class_index in self.open:
                events = self._continued(piece, self.open[piece.class_index], events)[-len(events) :]
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
