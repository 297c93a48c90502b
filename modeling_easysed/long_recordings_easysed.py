"""Recordings of hours in the memory of minutes: read in blocks, listened to window by window, forgotten.

The events are those of the recording as a whole. Of the frames, a coarse picture is kept."""

import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from .audio_easysed import (
    AudioClip,
    AudioError,
    Meter,
    as_channels,
    as_float,
    checked_warnings,
    mixed,
    open_sound,
    plausible_rate,
    resampler_of_blocks,
)
from .columns_easysed import ColumnMaximum, Envelope
from .evidence_easysed import Evidence
from .finder_easysed import EventFinder
from .input_easysed import input_warnings, key_word, measure_input
from .listening_easysed import Listener, NewFrames
from .recording_easysed import Progress

LONG_S = 600.0  # shorter recordings are taken as a whole
MEASURED_S = 300.0  # level, clipping, band limit and so on are measured on parts of this length
MAX_COLUMNS, PICTURE_COLUMNS = 20_000, 2000  # of probabilities and of the log-mel picture
PUSHED_S = 20.0
ARRAY_BLOCK_SAMPLES = 2**20
NUM_AHEAD = 2  # blocks that are read while the network listens, stretches that it hears while events are found
Item = TypeVar("Item")


class AudioBlocks:
    """A source read block by block: mono float32 at the model's rate, resampled as if it were one block.

    Args:
        source: as for `read_audio`, but no file object.
        sampling_rate: Hz of the blocks.

    Attributes:
        announced_s: duration in seconds that the source says it has; None = it says nothing, or cannot be read.
        clip: after the last block: duration, rate and warnings, without samples.
    """

    def __init__(self, source: Any, sampling_rate: int) -> None:
        self.source, self.sampling_rate = source, sampling_rate
        self.clip: AudioClip | None = None
        self.announced_s = announced_duration(source)

    def __iter__(self) -> Iterator[np.ndarray]:
        """
        Raises:
            AudioError: as `read_audio`; what was given out by then is not to be used.
        """
        if _is_array(self.source):
            yield from self._array()
        else:
            yield from self._file()

    def _array(self) -> Iterator[np.ndarray]:
        name = self.source.get("path", self.source.get("file"))
        rate, meter = plausible_rate(self.source["sampling_rate"], name), Meter()
        samples = as_channels(self.source["array"])

        def blocks() -> Iterator[np.ndarray]:
            for start in range(0, len(samples), ARRAY_BLOCK_SAMPLES):
                block = as_float(samples[start : start + ARRAY_BLOCK_SAMPLES])
                meter.add(block)
                yield mixed(block)

        yield from self._measured(blocks(), meter, rate, samples.shape[1], name)

    def _file(self) -> Iterator[np.ndarray]:
        source = self.source
        name = None if isinstance(source, bytes) else str(source)
        with opened(source) as file, open_sound(file, file.read(16), name) as (blocks, rate):
            yield from self._measured(iter(blocks), blocks.meter, rate, blocks.sound.channels, name)
            self.clip.warnings.extend(blocks.damage)

    def _measured(
        self, blocks: Iterator[np.ndarray], meter: Meter, rate: int, channels: int, name: str | None
    ) -> Iterator[np.ndarray]:
        resampler, parts, span = resampler_of_blocks(rate, self.sampling_rate), PartMeasures(self.sampling_rate), Span()
        for block in blocks:
            checked_warnings(meter, 1.0, rate, channels, name, self.sampling_rate)  # NaN ends it here
            span.add(block)
            resampled = block if resampler is None else resampler.resample_chunk(block)
            parts.add(resampled)
            yield resampled
        if resampler is not None:
            rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            parts.add(rest)
            yield rest
        warnings = checked_warnings(meter, span.size, rate, channels, name, self.sampling_rate)
        given = {key_word(warning) for warning in warnings}
        if any(word.startswith("silent") for word in given):
            given.add("too quiet")
        warnings += [one for one in parts.warnings() if key_word(one) not in given]
        nothing = np.zeros(0, np.float32)
        duration = meter.num_samples / rate
        self.clip = AudioClip(nothing, self.sampling_rate, rate, channels, duration, name, warnings)


class Span:
    """Smallest and largest sample so far; `size` is their distance."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def add(self, block: np.ndarray) -> None:
        self.low, self.high = min(self.low, float(block.min())), max(self.high, float(block.max()))

    @property
    def size(self) -> float:
        return self.high - self.low


class PartMeasures:
    """The warnings of `measure_input`, part by part of `MEASURED_S` seconds, with the times they hold for."""

    def __init__(self, sampling_rate: int) -> None:
        self.sampling_rate, self.num_samples = sampling_rate, 0
        self.kept: list[np.ndarray] = []
        self.found: dict[str, list[tuple[float, float, str]]] = {}

    def add(self, samples: np.ndarray) -> None:
        self.kept.append(samples)
        if sum(map(len, self.kept)) >= MEASURED_S * self.sampling_rate:
            self._measure()

    def _measure(self) -> None:
        part, self.kept = np.concatenate(self.kept), []
        if len(part) == 0:
            return
        start = self.num_samples / self.sampling_rate
        self.num_samples += len(part)
        for warning in input_warnings(measure_input(part, self.sampling_rate)):
            end = self.num_samples / self.sampling_rate
            self.found.setdefault(key_word(warning), []).append((start, end, warning))

    def warnings(self) -> list[str]:
        """One sentence for every fault: of its first part, and in how many others it was seen."""
        if self.kept:
            self._measure()
        sentences = []
        for parts in self.found.values():
            start, end, warning = parts[0]
            others = len(parts) - 1
            more = "" if others == 0 else f", and in {others} other part{'s' if others > 1 else ''} like it"
            sentences.append(f"{warning} (from {clock(start)} to {clock(end)}{more})")
        return sentences


@dataclass
class Overview:
    """What is kept of a long recording.

    Attributes:
        found: candidates above the floor, sorted.
        clip: duration, rate, warnings.
        times: (columns,) seconds, their middles; probabilities, total: (columns, classes), the largest inside.
        log_mel: (columns, mels), normalised.
        envelope: (columns, 2), lowest and highest sample.
        spread: (columns, classes), of the probability that is the largest; None where there is one sample of it.
    """

    found: list[Evidence]
    clip: AudioClip
    times: np.ndarray
    probabilities: np.ndarray
    total: np.ndarray
    log_mel: np.ndarray
    envelope: np.ndarray
    spread: np.ndarray | None


def listen_long(
    blocks: AudioBlocks, listener: Listener, finder: EventFinder, progress: Progress | None = None
) -> Overview:
    """Drives a recording through listener and finder: one thread reads, one listens, this one finds events.

    Raises:
        AudioError: as `read_audio`.
    """
    listener.network = listener.network.leaving_one()
    rate, hop, heard = blocks.sampling_rate, listener.hop, listener.heard
    num_frames = max(1, int(blocks.announced_s * rate / hop))
    per_frame = listener.stride if len(listener.starts) == 1 else 1  # log-mel frames of one point
    step = -(-(num_frames // per_frame) // MAX_COLUMNS)
    line, total = (ColumnMaximum(max(1, step)) for _ in range(2))
    picture = ColumnMaximum(-(-num_frames // PICTURE_COLUMNS))
    envelope = Envelope(num_frames * hop)
    total_windows = -(-num_frames // (listener.window - 2 * listener.context))
    found, num_done = [], 0

    def look(duration_s: float | None) -> None:
        found.extend(finder.update(heard, duration_s))
        line.add(heard.line.probabilities, heard.first_point, heard.line.spread)
        total.add(heard.line.total, heard.first_point)
        picture.add(heard.recording.log_mel, heard.first * listener.stride)
        heard.forget(finder.needed_from(heard))

    for samples, windows in read_ahead(hear_blocks(blocks, listener)):
        envelope.add(samples)
        if windows:
            listener.take(windows)
            look(None)
            num_done += len(windows)
            if progress is not None:
                progress(min(num_done, total_windows), total_windows)
    listener.finish()
    look(blocks.clip.duration)
    if progress is not None:
        progress(total_windows, total_windows)
    probabilities, spread = line.results()
    point_s, width = hop * per_frame / rate, line.step
    times = np.minimum((np.arange(len(probabilities)) * width + (width - 1) / 2) * point_s, blocks.clip.duration)
    return Overview(
        found=sorted(found, key=lambda one: one.box),
        clip=blocks.clip,
        times=times,
        probabilities=probabilities,
        total=total.result(),
        log_mel=picture.result(),
        envelope=envelope.result(),
        spread=spread if heard.recording.num_answers > 1 else None,
    )


def hear_blocks(blocks: AudioBlocks, listener: Listener) -> Iterator[tuple[np.ndarray, list[NewFrames]]]:
    """Samples, and what the listener heard with them; blocks are read while it listens."""
    size = round(PUSHED_S * blocks.sampling_rate)
    for block in read_ahead(blocks):
        for start in range(0, len(block), size):
            yield block[start : start + size], listener.hear(block[start : start + size])


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, made by a thread while the caller works on those before; errors come in their place."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as maker:
        ahead = deque(maker.submit(next, source, end) for _ in range(NUM_AHEAD))
        while (item := ahead.popleft().result()) is not end:
            ahead.append(maker.submit(next, source, end))
            yield item


def announced_duration(source: Any) -> float | None:
    """Seconds that a path, bytes or an array says it has; None where it cannot be said without reading it."""
    try:
        if _is_array(source):
            array = source["array"]
            shape = tuple(array.shape) if hasattr(array, "shape") else np.shape(array)
            return max(shape) / float(source["sampling_rate"]) if 1 <= len(shape) <= 2 else None
        if isinstance(source, bytes | str | Path):
            with opened(source) as file, open_sound(file, file.read(16), None) as (blocks, rate):
                return blocks.sound.frames / rate
    except (AudioError, OSError, TypeError, ValueError, ImportError, ZeroDivisionError):
        pass
    return None


def opened(source: bytes | str | Path) -> BinaryIO:
    """A path or the bytes of a file as an open file."""
    return io.BytesIO(source) if isinstance(source, bytes) else Path(source).expanduser().open("rb")


def _is_array(source: Any) -> bool:
    return isinstance(source, Mapping) and source.get("array") is not None and "sampling_rate" in source


def clock(seconds: float) -> str:
    """E.g. 1:02:03."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


__all__ = ["AudioBlocks", "LONG_S", "Overview", "announced_duration", "listen_long", "read_ahead"]
