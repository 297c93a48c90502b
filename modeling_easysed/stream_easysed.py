"""Detection while the sound goes on: blocks in, each event out once, as soon as it is over.

    stream = EventStream(pipe, sampling_rate=48000)
    for block in microphone:
        for event in stream.push(block):
            print(event.label, event.onset, event.offset, event.decision)
    last_events = stream.close()

The events are those of `pipe(recording, exit=...)` on the whole recording, whatever the size of the blocks, and memory
stays bounded however long it goes on. What differs: an event is judged when it is over, on what is known by then, so
reasons that look at the recording's background see the last minute of it."""

import math
from typing import Any

import numpy as np

from .audio_easysed import AudioError, as_float, plausible_rate, resampler_of_blocks
from .decisions_easysed import Goal
from .detection_easysed import Event
from .detector_easysed import Detector
from .finder_easysed import EventFinder
from .input_easysed import input_warnings, measure_input
from .listening_easysed import MIN_NEW_FRAMES
from .recording_easysed import window_sizes
from .sampling_easysed import Sampling

HOP_S = 2.0  # between windows, where the network hears no more of a longer one
PUSHED_S = 10.0  # longer blocks are taken in pieces, so that one of an hour needs no more memory
INPUT_CHECK_S = 20.0  # of the most recent audio, for the reasons that lie in the recording itself


class EventStream:
    """Events of sound that goes on.

    Args:
        pipe: the detector.
        sampling_rate: Hz of what is pushed.
        exit: its number, 1 = shallowest; None = the deepest; "auto" = window by window, see the pipeline. (A recording
            as a whole has longer windows, so there "auto" may choose otherwise.)
        uncertainty, passes, shifts, seed, min_precision, min_recall, max_false_alarms_per_hour: as for the pipeline.
        window_s: seconds that the network hears at once; None = as short as gives the same frames as long windows do.
            Shorter windows bring events sooner and cost more.

    Attributes:
        latency_s: an event is reported at most so many seconds after its class has fallen silent.
        duration: seconds that were pushed.
        receipt, warnings: as in a `Detection`.

    Raises:
        ValueError: for a setting outside its range; AudioError for an implausible rate.
    """

    def __init__(
        self,
        pipe: Detector,
        sampling_rate: int,
        exit: int | str | None = None,
        uncertainty: str = "mc",
        passes: int = 20,
        shifts: int = 2,
        seed: int = 0,
        min_precision: float | None = None,
        min_recall: float | None = None,
        max_false_alarms_per_hour: float | None = None,
        window_s: float | None = None,
    ) -> None:
        exit = pipe.model.num_exits if exit is None else exit
        goals = {"min_precision": min_precision, "min_recall": min_recall}
        goals["max_false_alarms_per_hour"] = max_false_alarms_per_hour
        pipe.check_settings(exit=exit, uncertainty=uncertainty, passes=passes, shifts=shifts, seed=seed, **goals)
        sampling = Sampling(uncertainty, passes, seed)
        self.sampling_rate = plausible_rate(sampling_rate, "the stream")
        self._rate = pipe.feature_extractor.sampling_rate
        self._resampler = resampler_of_blocks(self.sampling_rate, self._rate)
        self._judge = pipe.judge(exit, sampling, shifts, Goal(**goals))
        self.receipt = {**pipe.receipt(exit, sampling, shifts, Goal(**goals)), "window_s": window_s}
        self.warnings = list(self._judge.warnings)
        sizes = stream_sizes(pipe, window_s)
        self._listener = pipe.listener(exit, sampling, shifts, sizes)
        self._finder = EventFinder(pipe.decoding(exit), self._judge.floor, pipe.feature_extractor)
        self.latency_s = _latency_s(pipe, sizes, self._finder.longest_silence_s(pipe.model.config.num_labels))
        self._recent = np.zeros(0, np.float32)
        self._num_pushed = 0
        self._is_closed = False

    @property
    def duration(self) -> float:
        return self._num_pushed / self.sampling_rate

    def push(self, samples: Any) -> list[Event]:
        """The next samples; returns the events that are over by now, sorted by onset.

        Args:
            samples: (samples,) or (samples, channels), floats with full scale 1 or PCM integers, any length.

        Raises:
            AudioError: NaN or infinity, another shape or kind of numbers; the stream then stands where it stood.
            ValueError: after `close`.
        """
        if self._is_closed:
            raise ValueError("the stream is closed: open another EventStream")
        mono = _as_mono(samples, self.duration)
        events = []
        step = round(PUSHED_S * self.sampling_rate)
        for start in range(0, len(mono), step):
            piece = mono[start : start + step]
            self._num_pushed += len(piece)
            events += self._hear(piece if self._resampler is None else self._resampler.resample_chunk(piece))
        return events

    def close(self) -> list[Event]:
        """The sound is over; returns the events that had not ended."""
        if self._is_closed:
            return []
        self._is_closed = True
        if self._num_pushed == 0:
            return []
        nothing = np.zeros(0, np.float32)
        rest = nothing if self._resampler is None else self._resampler.resample_chunk(nothing, last=True)
        events = self._hear(rest)
        if self._listener.num_samples == 0:  # fewer samples than one at the model's rate
            self._listener.push(np.zeros(1, np.float32))
        self._listener.finish()
        found = self._finder.update(self._listener.heard, self.duration)
        return events + self._judge.events(found, self._input_warnings(), self.duration)

    def sounding(self) -> list[Event]:
        """What sounds at the end of what is analysed so far, as it would be reported if it ended there.

        These are no reports: `push` and `close` still give each event once, when it is over.
        """
        if self._listener.heard.recording is None or self._is_closed:
            return []
        found = self._finder.sounding(self._listener.heard)
        return self._judge.events(found, self._input_warnings(), math.inf)

    def _hear(self, samples: np.ndarray) -> list[Event]:
        if len(samples) == 0:
            return []
        self._recent = np.concatenate([self._recent, samples])[-round(INPUT_CHECK_S * self._rate) :]
        if self._listener.push(samples) == 0:
            return []
        heard = self._listener.heard
        found = self._finder.update(heard)
        heard.forget(self._finder.needed_from(heard))
        return self._judge.events(found, self._input_warnings(), math.inf) if found else []

    def _input_warnings(self) -> list[str]:
        return input_warnings(measure_input(self._recent, self._rate)) if len(self._recent) > 0 else []


def stream_sizes(pipe: Detector, window_s: float | None) -> tuple[int, int]:
    """Log-mel frames of a window and of its context.

    A CNN's frames depend on no more than the context, so that its windows need to be hardly longer than twice that.

    Raises:
        ValueError: for a window that is not longer than twice the context, or longer than the model's.
    """
    longest, context = window_sizes(pipe.model)
    config, hop_s = pipe.model.config, pipe.feature_extractor.hop_length_samples / pipe.feature_extractor.sampling_rate
    if window_s is None:
        needed = 2 * context + round(HOP_S / hop_s) if config.backbone == "cnn" else longest
    else:
        needed = round(window_s / hop_s)
        if not 2 * context < needed <= longest:
            raise ValueError(
                f"window_s must be more than {2 * context * hop_s:g} and at most {longest * hop_s:g} s for this model, "
                f"got {window_s!r}"
            )
    return min(longest, -(-needed // config.frame_stride) * config.frame_stride), context


def _latency_s(pipe: Detector, sizes: tuple[int, int], silence_s: float) -> float:
    """A silence is known when a window keeps its end: at worst a step between windows and a context later."""
    extractor = pipe.feature_extractor
    window, context = sizes
    made_ahead = (
        MIN_NEW_FRAMES
        + 2 * pipe.model.config.frame_stride
        + extractor.fft_length_samples // (extractor.hop_length_samples)
    )
    frames = window - 2 * context + context + made_ahead
    return silence_s + frames * extractor.hop_length_samples / extractor.sampling_rate


def _as_mono(samples: Any, at_s: float) -> np.ndarray:
    """(samples,) or (samples, channels) as mono float32."""
    array = np.asarray(samples)
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
        raise AudioError(f"a block must be (samples,) or (samples, channels), got shape {array.shape}")
    if array.size == 0:
        return np.zeros(0, np.float32)
    array = as_float(array)
    if not np.isfinite(array).all():
        raise AudioError(f"the block at {at_s:.3f} s has samples that are NaN or infinite: leave it out, or repair it")
    return array if array.ndim == 1 else array.mean(axis=1)


__all__ = ["EventStream", "stream_sizes"]
