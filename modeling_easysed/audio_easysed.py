"""Reading audio: a path, bytes, a file object or an array with its rate becomes one mono clip at the model's rate.

What cannot be used is one `AudioError` with the next step; what can be used but deserves a second look (silent,
clipped, too short, band-limited, damaged) is a sentence in `AudioClip.warnings`."""

import contextlib
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# First bytes of containers that libsndfile cannot open, after how many bytes they stand, and their common name.
UNSUPPORTED_MAGIC = (
    (4, b"ftyp", "m4a/mp4/3gp"),
    (0, b"#!AMR", "amr"),
    (0, b"\x30\x26\xb2\x75", "wma"),
    (0, b"\x1a\x45\xdf\xa3", "webm/mka"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
)
MIN_RATE_HZ, MAX_RATE_HZ = 1000, 1_000_000  # telephones have 8000, bat recorders up to 500 000
MAX_CHANNELS = 64  # a longer short axis is no set of channels but a mistake
BLOCK_SAMPLES = 2**20  # per read, so that a long multichannel file never lies in memory whole
SHORT_CLIP_S = 0.5
SILENT_LEVEL = 1e-4  # half of the span between lowest and highest sample: -80 dB of full scale
CLIPPED_LEVEL, CLIPPED_RUN, CLIPPED_SHARE = 0.9999, 3, 1e-4
LOUD_PEAK = 4.0  # decoded mp3 overshoots full scale a little; integers stored as floats overshoot by thousands

SENTENCES = {  # filled by `str.format`, here and by the page on a device
    "silent": "silent: the samples stay between {lowest:.2g} and {highest:.2g} of full scale",
    "silent_mixed": "silent when mixed: the channels cancel each other, pass one of them alone",
    "out_of_range": "out of range: samples reach {peak:.6g}, full scale is 1 "
    "(divide 16-bit values stored as floats by 32768)",
    "clipped": "clipped: {percent:.3g} % of the samples lie flat at full scale",
    "too_short": "too short: {duration:.3g} s, events need at least {shortest} s of audio to be recognised",
    "band_limited": "band-limited: at {rate} Hz the recording holds nothing above {highest:.0f} Hz, the model listens "
    "up to {listened:.0f} Hz",
}


class AudioError(ValueError):
    """Audio that cannot be used; the message is one line and says what to do next."""


@dataclass
class AudioClip:
    """Mono audio, ready for the feature extractor.

    Attributes:
        samples: (samples,), float32, full scale 1.
        sampling_rate: Hz of `samples`.
        original_sampling_rate: Hz before resampling.
        num_channels: channels before mixing.
        duration: seconds of the original audio.
        file: path or name of the source, None for an array.
        warnings: what was measured and may spoil a detection, one sentence each.
    """

    samples: np.ndarray
    sampling_rate: int
    original_sampling_rate: int
    num_channels: int
    duration: float
    file: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class Meter:
    """What is measured on the audio as it comes in, before mixing and resampling."""

    num_samples: int = 0
    lowest: float = math.inf
    highest: float = -math.inf
    num_clipped: int = 0
    num_bad: int = 0
    first_bad: tuple[int, int] | None = None  # sample, channel

    def add(self, block: np.ndarray) -> None:
        """Measures the next block, (samples, channels)."""
        lowest, highest = float(block.min()), float(block.max())  # NaN where there is one
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            bad = ~np.isfinite(block)
            if self.first_bad is None:
                sample, channel = np.argwhere(bad)[0]
                self.first_bad = (self.num_samples + int(sample), int(channel))
            self.num_bad += int(bad.sum())
        else:
            self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
            if max(highest, -lowest) >= CLIPPED_LEVEL:
                self.num_clipped += _count_in_runs(np.abs(block) >= CLIPPED_LEVEL)
        self.num_samples += len(block)

    def warnings(self, num_channels: int) -> list[str]:
        """Sentences on level; clipping needs flat tops (runs of full-scale samples), not one loud peak."""
        level, peak = (self.highest - self.lowest) / 2, max(self.highest, -self.lowest)
        if level < SILENT_LEVEL:
            return [SENTENCES["silent"].format(lowest=self.lowest, highest=self.highest)]
        if peak > LOUD_PEAK:
            return [SENTENCES["out_of_range"].format(peak=peak)]
        share = self.num_clipped / (self.num_samples * num_channels)
        if share > CLIPPED_SHARE:
            return [SENTENCES["clipped"].format(percent=100 * share)]
        return []


class FileBlocks:
    """Mono blocks (samples,) of an open sound file, at its own rate.

    Attributes, complete after the last block:
        meter: what was measured.
        damage: a warning when decoding stopped early, else nothing.
    """

    def __init__(self, sound: Any, decoding_error: type[Exception]) -> None:
        self.sound, self.decoding_error = sound, decoding_error
        self.meter, self.damage = Meter(), []

    def __iter__(self) -> Iterator[np.ndarray]:
        sound, stopped = self.sound, False
        while True:
            try:
                block = sound.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
            except self.decoding_error:
                stopped = True
                block = _salvage(sound, self.meter.num_samples, self.decoding_error)
            if len(block) > 0:
                self.meter.add(block)
                yield mixed(block)
            if len(block) < BLOCK_SAMPLES:
                break
        missing = sound.frames - self.meter.num_samples
        if stopped or missing > sound.samplerate // 10:  # encoders round the length they announce by a few frames
            end_s, announced_s = (number / sound.samplerate for number in (self.meter.num_samples, sound.frames))
            self.damage = [f"damaged: only the first {end_s:.2f} s of {announced_s:.2f} s can be decoded"]


def read_audio(source: Any, sampling_rate: int = 16000) -> AudioClip:
    """Reads one source as mono float32 at `sampling_rate`.

    Args:
        source: path, bytes of a file, binary file object, or a dict: `{"array": ..., "sampling_rate": ...}` with
            (samples,), (channels, samples) or (samples, channels), or `{"path": ..., "bytes": ...}` as `datasets` gives
            it with `Audio(decode=False)`. The shorter axis of a 2-d array is its channels; of two equal axes the first.
            Integer arrays are PCM: int16 is divided by 32768, and so on; floats have full scale 1.
        sampling_rate: Hz of the result.

    Returns:
        The clip; channels are averaged, other rates resampled by soxr.

    Raises:
        AudioError: missing, empty, damaged or unsupported file, not audio, no samples, a bare array, an implausible
            rate, NaN or infinity.
    """
    if isinstance(source, Mapping):
        if "array" not in source and "raw" not in source:
            return _read_mapping(source, sampling_rate)
        return _from_array(source, sampling_rate)
    if isinstance(source, (str, Path)):
        return _from_path(source, sampling_rate)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), None, sampling_rate)
    if callable(getattr(source, "read", None)):
        return _from_file_object(source, sampling_rate)
    raise AudioError(_wrong_type(source))


def _wrong_type(source: Any) -> str:
    if isinstance(source, (np.ndarray, list, tuple, int, float, np.number)) or hasattr(source, "detach"):
        return (
            "a bare array has no sampling rate: pass {'array': samples, 'sampling_rate': 44100} with the rate of the "
            "recording"
        )
    return (
        f"audio must be a path, bytes, a file object or {{'array': ..., 'sampling_rate': ...}}, got "
        f"{type(source).__name__}"
    )


def _read_mapping(source: Mapping, sampling_rate: int) -> AudioClip:
    """A dict without samples: the `path` and `bytes` of a `datasets` row."""
    path = source.get("path")
    if source.get("bytes") is not None:
        return _from_bytes(source["bytes"], path, sampling_rate)
    if path is not None:
        return _from_path(path, sampling_rate)
    raise AudioError(f"an audio dict needs 'array' and 'sampling_rate', got the keys {sorted(map(str, source))}")


def _from_array(source: Mapping, sampling_rate: int) -> AudioClip:
    name = source.get("path", source.get("file"))
    if source.get("sampling_rate") is None:
        raise AudioError("an array needs its rate: add 'sampling_rate' (Hz of the recording) to the dict")
    rate = plausible_rate(source["sampling_rate"], name)
    samples = as_float(as_channels(source["array"] if "array" in source else source["raw"]))
    meter = Meter()
    if len(samples) > 0:
        meter.add(samples)
    return _make_clip(mixed(samples), meter, rate, samples.shape[1], name, sampling_rate)


def as_channels(array: Any) -> np.ndarray:
    """Any array-like as (samples, channels)."""
    if hasattr(array, "detach"):  # a tensor, perhaps on a device or with a gradient
        array = array.detach().cpu()
        array = array.float().numpy() if str(array.dtype) == "torch.bfloat16" else array.numpy()
    try:
        array = np.asarray(array)
    except ValueError as error:
        raise AudioError(f"the array is no regular array of numbers: {error}") from error
    if array.size == 0:
        raise AudioError(f"the array has no samples, its shape is {array.shape}")
    if array.ndim == 1:
        return array[:, None]
    if array.ndim != 2 or min(array.shape) > MAX_CHANNELS:
        raise AudioError(
            f"an array must be (samples,), (channels, samples) or (samples, channels) with at most {MAX_CHANNELS} "
            f"channels, got shape {array.shape}"
        )
    return array.T if array.shape[0] <= array.shape[1] else array


def as_float(array: np.ndarray) -> np.ndarray:
    """PCM integers or floats as float32 with full scale 1; shape kept."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize <= 4:
        full_scale = 2.0 ** (8 * array.dtype.itemsize - 1)
        middle = full_scale if array.dtype.kind == "u" else 0.0  # unsigned PCM has its zero in the middle
        return ((array.astype(np.float64) - middle) / full_scale).astype(np.float32)
    raise AudioError(
        f"samples must be floats with full scale 1 or PCM integers of 8 to 32 bits, got {array.dtype}: cast first, "
        "e.g. array.astype('int16')"
    )


def mixed(samples: np.ndarray) -> np.ndarray:
    """Mean (samples,) of the channels of (samples, channels); numpy's own is four times slower for one or two."""
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    if samples.shape[1] == 2:
        return (samples[:, 0] + samples[:, 1]) * samples.dtype.type(0.5)
    return samples.mean(axis=1)


def _from_path(source: str | Path, sampling_rate: int) -> AudioClip:
    path, name = Path(source).expanduser(), _label(str(source))
    if name.startswith(("http://", "https://")):
        raise AudioError(f"{name} is a web address: download it first and pass the file or its bytes")
    try:
        if path.is_dir():
            raise AudioError(f"{name} is a folder: pass the files in it, or use the command `easysed detect FOLDER`")
        with path.open("rb") as file:
            return _decode(file, file.read(16), str(source), sampling_rate)
    except FileNotFoundError:
        raise AudioError(f"{name} does not exist: check the path") from None
    except OSError as error:
        raise AudioError(f"{name} cannot be read: {error.strerror}") from error


def _from_file_object(source: Any, sampling_rate: int) -> AudioClip:
    name = getattr(source, "name", None)
    content = source.read()
    if not isinstance(content, bytes):
        raise AudioError("the file object gives text, not bytes: open it with mode 'rb'")
    return _from_bytes(content, name if isinstance(name, str) else None, sampling_rate)


def _from_bytes(content: bytes, name: Any, sampling_rate: int) -> AudioClip:
    return _decode(io.BytesIO(content), content[:16], None if name is None else str(name), sampling_rate)


def _decode(file: Any, head: bytes, name: str | None, sampling_rate: int) -> AudioClip:
    """Decodes an open binary file whose first bytes are `head`."""
    with open_sound(file, head, name) as (blocks, rate):
        mono = list(blocks)
        mono = np.concatenate(mono) if mono else np.zeros(0, np.float32)
        clip = _make_clip(mono, blocks.meter, rate, blocks.sound.channels, name, sampling_rate)
    clip.warnings.extend(blocks.damage)
    return clip


@contextlib.contextmanager
def open_sound(file: Any, head: bytes, name: str | None) -> Iterator[tuple[FileBlocks, int]]:
    """The blocks of an open binary file whose first bytes are `head`, and their rate in Hz.

    Raises:
        AudioError: for what is no audio, also while it is read.
    """
    try:
        import soundfile
    except ImportError as error:
        raise ImportError("reading audio files needs soundfile: pip install soundfile soxr") from error
    _check_head(head, name)
    file.seek(0)
    try:
        with soundfile.SoundFile(_Nameless(file)) as sound:
            yield FileBlocks(sound, soundfile.SoundFileError), plausible_rate(sound.samplerate, name)
    except soundfile.SoundFileError as error:
        raise AudioError(
            f"{_label(name)} is not audio that can be read (wav, flac, ogg, mp3), or its header is damaged: check that "
            "it plays, or convert it with ffmpeg"
        ) from error


class _Nameless:
    """The part of a file object that soundfile needs, without its name: a suffix such as ".raw" would be believed."""

    def __init__(self, file: Any) -> None:
        self.read, self.readinto, self.seek, self.tell = file.read, file.readinto, file.seek, file.tell


def _check_head(head: bytes, name: str | None) -> None:
    if len(head) == 0:
        raise AudioError(f"{_label(name)} is empty (0 bytes): record or copy it again")
    for start, magic, kind in UNSUPPORTED_MAGIC:
        if head[start : start + len(magic)] == magic:
            wav = "out.wav" if name is None else f"{Path(name).stem}.wav"
            given = "in.m4a" if name is None else Path(name).name
            raise AudioError(f"{_label(name)} is {kind}, which is not supported: convert it, ffmpeg -i {given} {wav}")


def _salvage(sound: Any, start: int, decoding_error: type[Exception]) -> np.ndarray:
    """What can be read of a damaged block, in steps small enough to lose less than 50 ms."""
    pieces = [np.zeros((0, sound.channels), np.float32)]
    try:
        sound.seek(start)
        while len(piece := sound.read(512, dtype="float32", always_2d=True)) > 0:
            pieces.append(piece)
    except decoding_error:
        pass  # the damaged place: what came before it is kept
    return np.concatenate(pieces)[: BLOCK_SAMPLES - 1]


def _make_clip(
    mono: np.ndarray, meter: Meter, rate: int, num_channels: int, name: str | None, sampling_rate: int
) -> AudioClip:
    """Checks what the meter saw, resamples and collects the warnings."""
    warnings = checked_warnings(
        meter, float(np.ptp(mono)) if len(mono) else 0.0, rate, num_channels, name, sampling_rate
    )
    samples, duration = _resample(mono, rate, sampling_rate), len(mono) / rate
    return AudioClip(samples, sampling_rate, rate, num_channels, duration, name, warnings)


def checked_warnings(
    meter: Meter, span: float, rate: int, num_channels: int, name: str | None, sampling_rate: int
) -> list[str]:
    """What the meter saw, as warnings.

    Args:
        meter: of all channels; span: largest less smallest sample of their mean.
        rate: Hz of the source; sampling_rate: Hz that the model listens at.

    Raises:
        AudioError: no samples, NaN or infinity.
    """
    if meter.num_samples == 0:
        raise AudioError(f"{_label(name)} has no samples: record or copy it again")
    if meter.first_bad is not None:
        sample, channel = meter.first_bad
        raise AudioError(
            f"{_label(name)} has {meter.num_bad} samples that are NaN or infinite, the first at {sample / rate:.3f} s "
            f"(sample {sample}, channel {channel}): repair or cut the recording"
        )
    duration = meter.num_samples / rate
    warnings = meter.warnings(num_channels)
    if not warnings and num_channels > 1 and span < 2 * SILENT_LEVEL:
        warnings.append(SENTENCES["silent_mixed"])
    if duration < SHORT_CLIP_S:
        warnings.append(SENTENCES["too_short"].format(duration=duration, shortest=SHORT_CLIP_S))
    if rate < sampling_rate:
        limits = {"highest": rate / 2, "listened": sampling_rate / 2}
        warnings.append(SENTENCES["band_limited"].format(rate=rate, **limits))
    return warnings


def _resample(mono: np.ndarray, rate: int, sampling_rate: int) -> np.ndarray:
    """(samples,) at another rate, at least one sample."""
    if rate == sampling_rate:
        return mono
    samples = _soxr(rate, sampling_rate).resample(mono, rate, sampling_rate)
    return samples if len(samples) > 0 else np.zeros(1, np.float32)


def resampler_of_blocks(rate: int, sampling_rate: int) -> Any:
    """Resamples mono blocks as if they were one (soxr's `resample_chunk`); None where nothing is to be done."""
    if rate == sampling_rate:
        return None
    return _soxr(rate, sampling_rate).ResampleStream(rate, sampling_rate, 1, dtype="float32")


def _soxr(rate: int, sampling_rate: int) -> Any:
    try:
        import soxr
    except ImportError as error:
        raise ImportError(f"resampling {rate} to {sampling_rate} Hz needs soxr: pip install soxr") from error
    return soxr


def plausible_rate(rate: Any, name: str | None) -> int:
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)):
        raise AudioError(f"sampling_rate must be a number of Hz, got {rate!r}")
    if not math.isfinite(rate) or rate != int(rate) or not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise AudioError(
            f"sampling_rate of {_label(name)} must be a whole number of Hz between {MIN_RATE_HZ} and {MAX_RATE_HZ}, "
            f"got {rate}: declare the rate of the recording"
        )
    return int(rate)


def _count_in_runs(loud: np.ndarray) -> int:
    """How many entries of (samples, channels) stand in runs of at least `CLIPPED_RUN` along the samples."""
    if np.count_nonzero(loud) < CLIPPED_RUN:
        return 0
    starts = loud[: len(loud) - CLIPPED_RUN + 1].copy()
    for shift in range(1, CLIPPED_RUN):
        starts &= loud[shift : shift + len(starts)]
    in_run = np.zeros_like(loud)
    for shift in range(CLIPPED_RUN):
        in_run[shift : shift + len(starts)] |= starts
    return int(in_run.sum())


def _label(name: str | None) -> str:
    """The name as a message holds it: on one line, whatever the file is called."""
    return "the audio" if name is None else " ".join(str(name).split())


__all__ = [
    "AudioClip",
    "AudioError",
    "FileBlocks",
    "Meter",
    "as_channels",
    "as_float",
    "checked_warnings",
    "mixed",
    "open_sound",
    "plausible_rate",
    "read_audio",
    "resampler_of_blocks",
]
