"""Listening to audio as it comes: samples in, frames of all views on one growing time line, old ones forgotten.

    push(samples) -> log-mel frames -> windows as soon as they are complete -> Heard, a stretch of recent frames

The windows are those of `sample_recording`, so a recording that was pushed in blocks of any size gives the frames that
it gives as a whole. What is kept is bounded by what its owner asks to keep."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .recording_easysed import FrameLine, RecordingSamples, frame_line, mean_probabilities, window_sizes
from .sampling_easysed import Sampling, WindowSamples, network_of, sample_window
from .shifts_easysed import view_starts

Temperatures = Callable[[np.ndarray], np.ndarray]
MIN_NEW_FRAMES = 16  # log-mel frames made at once, so that blocks of a few milliseconds cost no more than long ones


class FeatureLine:
    """Log-mel frames of audio that comes in blocks: those of one transform of the whole.

    Args:
        extractor: the front end.
        skip: samples to leave out at the beginning.

    Attributes:
        first: number of the oldest frame that is kept.
        frames: (frames, mels), normalised, from there on.
    """

    def __init__(self, extractor: Any, skip: int = 0) -> None:
        self.extractor, self.skip, self.first = extractor, skip, 0
        self.frames = np.zeros((0, extractor.feature_size), np.float32)
        self._samples = np.zeros(0, np.float32)
        self._first_sample = 0  # number of the oldest sample that is kept, a multiple of the hop
        self._margin = -(-extractor.fft_length_samples // extractor.hop_length_samples)

    @property
    def stop(self) -> int:
        """The number after the newest frame's."""
        return self.first + len(self.frames)

    def push(self, samples: np.ndarray, is_last: bool = False) -> None:
        """The next samples (samples,); `is_last` also gives the frames that hear the end."""
        skipped = min(self.skip, len(samples))
        self.skip -= skipped
        self._samples = np.concatenate([self._samples, samples[skipped:]])
        hop, total = self.extractor.hop_length_samples, self._first_sample + len(self._samples)
        stop = self.extractor.num_frames(total) if is_last and total > 0 else total // hop - self._margin
        if stop < self.stop + (1 if is_last else MIN_NEW_FRAMES):
            return
        first = self._first_sample // hop
        end = None if is_last else (stop + self._margin) * hop - self._first_sample
        new = self.extractor.frames(self._samples[:end])
        self.frames = np.concatenate([self.frames, new[self.stop - first : stop - first]])
        keep = max(0, stop - self._margin - first) * hop
        self._samples, self._first_sample = self._samples[keep:], self._first_sample + keep

    def forget(self, first: int) -> None:
        """Drops frames before number `first`."""
        dropped = min(max(0, first - self.first), len(self.frames))
        self.frames, self.first = self.frames[dropped:].copy(), self.first + dropped


class Heard:
    """Recent frames of a recording: the samples of every view, and both lines that come from them.

    Args:
        temperatures: frame exits (frames,) to divisors of their logits; None = 1.

    Attributes:
        first: number of the oldest output frame that is kept.
        recording: its samples, with time 0 at that frame; None before the first window.
        raw: probabilities without temperatures; line: with them. Point k lies at `first_point` + k grid steps.
        num_points: points of the grid that are known, forgotten ones included.
    """

    def __init__(self, temperatures: Temperatures | None = None) -> None:
        self.temperatures, self.first, self.num_points = temperatures, 0, 0
        self.recording: RecordingSamples | None = None
        self.raw = np.zeros((0, 0), np.float32)
        self.line = FrameLine(*(np.zeros((0, 0), np.float32) for _ in range(4)))

    @property
    def points_per_frame(self) -> int:
        recording = self.recording
        return 1 if len(recording.views) == 1 else recording.frame_samples // recording.hop_samples

    @property
    def point_samples(self) -> int:
        """Samples between two points of the grid."""
        return self.recording.frame_samples // self.points_per_frame

    @property
    def first_point(self) -> int:
        return self.first * self.points_per_frame

    def add(self, new: RecordingSamples, num_samples: int | None) -> None:
        """The next window's frames; `num_samples` is the recording's length when these were the last."""
        self.recording = new if self.recording is None else _joined(self.recording, new)
        step, per_frame, frame_samples = self.point_samples, self.points_per_frame, new.frame_samples
        if num_samples is not None:
            stop = num_samples // step + 1
        else:
            last = min(start + (self.first + views.shape[1] - 1) * frame_samples for start, views in self._views())
            stop = last // step + 1
        if stop <= self.num_points:
            return
        begin = max(self.num_points // per_frame - 1, self.first)
        recent = self._from(begin - self.first, (stop - 1) * step - begin * frame_samples)
        skip = self.num_points - begin * per_frame
        line = frame_line(recent, None if self.temperatures is None else self.temperatures(recent.frame_exits))
        raw = line.probabilities if self.temperatures is None else mean_probabilities(recent)
        self.raw = _longer(self.raw, raw[skip:])
        self.line = FrameLine(*(_longer(a, b[skip:]) for a, b in zip(self.line, line, strict=True)))
        self.num_points = stop

    def _views(self) -> list[tuple[int, np.ndarray]]:
        return list(self.recording.views.items())

    def _from(self, frame: int, num_samples: int) -> RecordingSamples:
        """The recording from frame `frame` of those that are kept on; the log-mel frames are left as they are."""
        now = self.recording
        return replace(
            now,
            views={start: logits[:, frame:] for start, logits in now.views.items()},
            exit_logits=now.exit_logits[:, frame:],
            embeddings=now.embeddings[frame:],
            frame_exits=now.frame_exits[frame:],
            num_samples=num_samples,
        )

    def forget(self, first: int) -> None:
        """Drops output frames before number `first`; those that the next point may need stay."""
        if self.recording is None:
            return
        dropped = min(first, self.num_points // self.points_per_frame - 1) - self.first
        if dropped <= 0:
            return
        kept = self._from(dropped, self.recording.num_samples)
        stride = kept.frame_samples // kept.hop_samples
        self.recording = replace(
            kept,
            views={start: logits.copy() for start, logits in kept.views.items()},
            exit_logits=kept.exit_logits.copy(),
            embeddings=kept.embeddings.copy(),
            frame_exits=kept.frame_exits.copy(),
            log_mel=kept.log_mel[dropped * stride :].copy(),
        )
        points = dropped * self.points_per_frame
        self.raw = self.raw[points:].copy()
        self.line = FrameLine(*(own[points:].copy() for own in self.line))
        self.first += dropped


def _longer(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.concatenate([known, new]) if len(known) else new


def _joined(before: RecordingSamples, new: RecordingSamples) -> RecordingSamples:
    views = {start: np.concatenate([logits, new.views[start]], axis=1) for start, logits in before.views.items()}
    return replace(
        before,
        views=views,
        exit_logits=np.concatenate([before.exit_logits, new.exit_logits], axis=1),
        embeddings=np.concatenate([before.embeddings, new.embeddings]),
        frame_exits=np.concatenate([before.frame_exits, new.frame_exits]),
        log_mel=np.concatenate([before.log_mel, new.log_mel]),
    )


class NewFrames(NamedTuple):
    """What a window adds, as `Heard.add` takes it."""

    recording: RecordingSamples
    num_samples: int | None


class Listener:
    """Windows over audio as it comes.

    Args:
        model, extractor: of one checkpoint; a `Network`, or a model of PyTorch.
        sampling, shifts, exit_index, doubt_limits: as for `sample_recording`.
        temperatures: see `Heard`.
        sizes: log-mel frames of a window and of its context, multiples of the frame stride; None = the model's.

    Attributes:
        heard: what is known so far.
        num_samples: that were pushed.
    """

    def __init__(
        self,
        model: Any,
        extractor: Any,
        sampling: Sampling,
        shifts: int = 0,
        exit_index: int | None = None,
        doubt_limits: Sequence[float] = (),
        temperatures: Temperatures | None = None,
        sizes: tuple[int, int] | None = None,
    ) -> None:
        self.network, self.extractor, self.sampling = network_of(model), extractor, sampling
        self.doubt_limits = doubt_limits
        self.stride, self.hop = self.network.config.frame_stride, extractor.hop_length_samples
        self.exit_index = self.network.num_exits if exit_index is None else exit_index
        self.window, self.context = window_sizes(self.network) if sizes is None else sizes
        self.starts = view_starts(shifts, extractor.sampling_rate, self.hop * self.stride)
        self.lines = {phase: FeatureLine(extractor, phase) for phase in {start % self.hop for start in self.starts}}
        self.heard = Heard(temperatures)
        self.num_samples = 0
        self._next_window = self._kept = 0  # log-mel frames: where the next window begins, and up to where is kept

    def push(self, samples: np.ndarray) -> int:
        """The next samples (samples,), mono, at the model's rate; returns how many windows they completed."""
        new = self.hear(samples)
        self.take(new)
        return len(new)

    def finish(self) -> None:
        """The recording is over: the frames up to its end.

        Raises:
            ValueError: when nothing was pushed.
        """
        self.take(self.hear_rest())

    def take(self, windows: Sequence[NewFrames]) -> None:
        """Puts on the time line what was heard."""
        for new in windows:
            self.heard.add(*new)

    def hear(self, samples: np.ndarray) -> list[NewFrames]:
        """What `push` does without `take`, so that a thread may hear ahead of another that takes."""
        self.num_samples += len(samples)
        for line in self.lines.values():
            line.push(samples)
        windows, reach = [], max(self.starts) // self.hop
        while min(line.stop for line in self.lines.values()) >= self._next_window + self.window + reach:
            windows.append(self._hear_next())
        return windows

    def hear_rest(self) -> list[NewFrames]:
        """What `finish` does without `take`."""
        if self.num_samples == 0:
            raise ValueError("there are no samples: push some before finish")
        for line in self.lines.values():
            line.push(np.zeros(0, np.float32), is_last=True)
        num_frames = self.extractor.num_frames(self.num_samples)
        begin = max(0, -(-(num_frames - self.window) // self.stride) * self.stride)
        windows = []
        while self._next_window < begin:
            windows.append(self._hear_next())
        return [*windows, self._hear(begin, num_frames, None)]

    def _hear_next(self) -> NewFrames:
        end = self._next_window + self.window
        new = self._hear(self._next_window, end, end - self.context)
        self._next_window += self.window - 2 * self.context
        for line in self.lines.values():
            line.forget(self._next_window - self.window)
        return new

    def _hear(self, begin: int, end: int, keep: int | None) -> NewFrames:
        """Samples of the window from log-mel frame `begin` to `end`, of which frames up to `keep` are new and kept."""
        pieces: dict[int, WindowSamples] = {}
        plain = None
        with self.network.evaluating():
            for start in self.starts:
                line = self.lines[start % self.hop]
                shift = start // self.hop - line.first
                values = line.frames[begin + shift : end + shift]
                if len(values) == 0:
                    continue  # the recording ends before this view's first frame
                chosen, limits = (self.exit_index, self.doubt_limits) if plain is None else (plain.exit_index, ())
                pieces[start] = sample_window(self.network, values, self.sampling, chosen, limits, plain is None)
                plain = pieces[0]
        first = (self._kept - begin) // self.stride
        last = None if keep is None else (keep - begin) // self.stride
        line = self.lines[0]
        new = RecordingSamples(
            views={start: one.logits[:, first:last] for start, one in pieces.items()},
            weights=plain.weights,
            exit_logits=plain.exit_logits[:, first:last],
            embeddings=plain.embeddings[first:last],
            frame_exits=np.full(len(plain.embeddings[first:last]), plain.exit_index),
            frame_samples=self.hop * self.stride,
            hop_samples=self.hop,
            num_samples=self.num_samples,
            log_mel=line.frames[self._kept - line.first : (end if keep is None else keep) - line.first],
        )
        self._kept = end if keep is None else keep
        return NewFrames(new, self.num_samples if keep is None else None)


__all__ = ["FeatureLine", "Heard", "Listener", "NewFrames"]
