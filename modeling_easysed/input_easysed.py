"""What may be wrong with a recording before the model is blamed: level, clipping, offset, noise floor, bandwidth.

`read_audio` warns of what it sees while decoding; here the mono samples that the model listens to are measured, in
blocks, so that hours need hardly more memory than minutes. A warning is given only where the fault is certain."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .audio_easysed import AudioClip

FRAME_S, BLOCK_FRAMES = 0.05, 400  # spectra have bins of 20 Hz; 20 s are measured at a time
SILENCE_DB = -120.0  # the level of what has no energy at all
QUIET_PEAK_DB = -55.0  # fewer than 60 of the 32768 steps of 16 bits
DC_LEVEL, DC_TO_LEVEL = 0.02, 0.2  # of full scale, and of the RMS around the offset
# Of white noise, 5 % and 95 % of the frames at 16 kHz lie 0.6 dB apart; the steadiest rain of ESC-10 has 1.3 dB.
NOISE_FLOOR_DB, NOISE_RISE_DB, NOISE_FLATNESS, NOISE_MIN_S = -35.0, 0.9, 0.9, 1.0

# Clipping: flat runs at an extreme, (tolerance as share of it, samples), as cut, and as mildly rippled since, e.g. by
# resampling. A smooth top falls by at most 9 tolerances within half its run on either side, a clipped one by more.
CLIPPED_AS_CUT, CLIPPED_RIPPLED, CLIPPED_FALL = (1e-4, 3), (0.04, 6), 10
CLIPPED_MIN_PEAK, CLIPPED_SHARE, RIPPLED_MIN_SAMPLES = 0.1, 1e-4, 18
SMALLEST_STEP, COARSE_STEP = 2.0**-15, 2.0**-7  # of 16-bit and of 8-bit audio

# Band limits: filled up to a cliff, near-silence above. Resamplers and codecs make cliffs, sounds fall off gradually.
LOUD_RANGE_DB, MIN_LOUD_FRAMES, MAX_LOUD_FRAMES = 30.0, 5, 64  # the spectrum is that of the loud frames
BANDWIDTH_RANGE_DB = 60.0  # a bin this far below the strongest carries no energy worth the name
CLIFF_WIDTH_HZ, CLIFF_DROP_DB, CLIFF_DEPTH_DB = 500.0, 40.0, 50.0
MIN_CUTOFF_HZ, MAX_CUTOFF_HZ = 1000.0, 7000.0  # cliffs above are the low-pass of lossy formats, hardly a loss

SENTENCES = {  # filled by `str.format`, here and by the page on a device
    "too_quiet": "too quiet: the loudest sample is at {peak_db:.0f} dB of full scale",
    "clipped": "clipped: {clipped_percent:.3g} % of the samples lie flat at the recording's own highest or lowest "
    "value",
    "band_limited": "band-limited: a codec or a resampler has cut off all above {cutoff_hz:.0f} Hz",
    "off_centre": "off centre: the samples have a constant offset of {dc_offset:+.3f} of full scale",
    "noisy": "noisy: steady white noise at {level_db:.0f} dB of full scale and nothing above it",
}


@dataclass(frozen=True)
class InputMeasures:
    """Measures of one recording; levels are RMS around the mean in dB of full scale, at least `SILENCE_DB`."""

    duration_s: float
    peak_db: float  # of the largest absolute sample
    level_db: float
    noise_floor_db: float  # 10th percentile of the levels of 50 ms frames
    loud_db: float  # 95th percentile of the same
    clipped_share: float  # of the samples, 0 to 1: those in flat runs at the recording's own extremes
    dc_offset: float  # mean of the samples, full scale 1
    bandwidth_hz: float  # highest frequency that still carries energy; 0 for silence
    cutoff_hz: float | None  # where the spectrum ends in a cliff between 1 and 7 kHz; None where there is none
    flatness: float  # of the spectrum from 100 Hz to 7 kHz: 0 for a tone, 1 for white noise


def measure_input(samples: np.ndarray, sampling_rate: int) -> InputMeasures:
    """Measures mono audio, (samples,), float, finite, full scale 1, at `sampling_rate` Hz.

    Raises:
        ValueError: another shape, or no samples.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"samples must be mono, (samples,), at least one, got shape {samples.shape}: mix the channels")
    frame = min(len(samples), max(1, round(FRAME_S * sampling_rate)))
    blocks = [samples[start : start + BLOCK_FRAMES * frame] for start in range(0, len(samples), BLOCK_FRAMES * frame)]
    lowest, highest = float(min(map(np.min, blocks))), float(max(map(np.max, blocks)))
    dc_offset = sum(float(np.sum(block, dtype=np.float64)) for block in blocks) / len(samples)
    total, frame_powers = _powers(blocks, frame, dc_offset)
    floor, loud = _quantiles(frame_powers, 0.1, 0.95)
    loud_frames = np.flatnonzero(frame_powers > max(_ratio(-LOUD_RANGE_DB) * frame_powers.max(), _ratio(SILENCE_DB)))
    spectrum, bin_hz = _spectrum(samples, frame, loud_frames, dc_offset), sampling_rate / frame
    cutoff_hz = _cutoff(spectrum, bin_hz) if len(loud_frames) >= MIN_LOUD_FRAMES else None
    carrying = np.flatnonzero(spectrum > _ratio(-BANDWIDTH_RANGE_DB) * spectrum.max())
    return InputMeasures(
        duration_s=len(samples) / sampling_rate,
        peak_db=_db(max(highest, -lowest) ** 2),
        level_db=_db(total / len(samples)),
        noise_floor_db=_db(floor),
        loud_db=_db(loud),
        clipped_share=_num_clipped(blocks, lowest, highest, dc_offset) / len(samples),
        dc_offset=dc_offset,
        bandwidth_hz=cutoff_hz if cutoff_hz is not None else float(carrying.max(initial=0) * bin_hz),
        cutoff_hz=cutoff_hz,
        flatness=_flatness(spectrum[math.ceil(100.0 / bin_hz) : int(MAX_CUTOFF_HZ / bin_hz) + 1]),
    )


def _quantiles(values: np.ndarray, *shares: float) -> list[float]:
    """`np.quantile` of (values,), whose own checks take longer than a sort of ten seconds' frames."""
    line = np.sort(values)
    return np.interp([share * (len(line) - 1) for share in shares], np.arange(len(line)), line).tolist()


def _ratio(db: float) -> float:
    return 10.0 ** (db / 10.0)


def _db(power: float) -> float:
    return 10.0 * math.log10(max(float(power), _ratio(SILENCE_DB)))


def _powers(blocks: list[np.ndarray], frame: int, dc_offset: float) -> tuple[float, np.ndarray]:
    """Sum of squares around the mean, and the mean square of every whole frame, (frames,)."""
    total, powers = 0.0, []
    for block in blocks:
        centred = block - np.float32(dc_offset)
        total += float(np.dot(centred, centred))
        frames = centred[: len(block) // frame * frame].reshape(-1, frame)
        powers.append(np.einsum("ij,ij->i", frames, frames) / frame)
    return total, np.concatenate(powers)


def _num_clipped(blocks: list[np.ndarray], lowest: float, highest: float, dc_offset: float) -> int:
    """Samples in clipped runs at either extreme; a run that crosses blocks counts as two."""
    as_cut = rippled = 0
    for sign, top in ((1.0, highest), (-1.0, -lowest)):
        if min(top, top - sign * dc_offset) < CLIPPED_MIN_PEAK:
            continue  # an extreme near zero or near the mean is where a one-sided signal rests
        for block in blocks:
            near = _near_top(block, sign, top, CLIPPED_RIPPLED[0])
            rippled += _num_flat(block, sign, near, top, *CLIPPED_RIPPLED)
            as_cut += _num_flat(block, sign, near, top, *CLIPPED_AS_CUT)
    return max(as_cut, rippled if rippled >= RIPPLED_MIN_SAMPLES else 0)


def _width(top: float, tolerance: float) -> float:
    return max(tolerance * top, SMALLEST_STEP)


def _near_top(block: np.ndarray, sign: float, top: float, tolerance: float) -> np.ndarray:
    """Places in (samples,) where it is within the tolerance of the extreme `sign` x `top`."""
    limit = np.float32(top - _width(top, tolerance))
    return np.flatnonzero(block >= limit if sign > 0 else block <= -limit)


def _num_flat(block: np.ndarray, sign: float, near: np.ndarray, top: float, tolerance: float, min_run: int) -> int:
    """Samples of (samples,) in flat runs at the extreme `sign` x `top` that end in corners.

    `near`: places to look at, those of a wider tolerance.
    """
    width = _width(top, tolerance)
    flat = near[np.float32(sign) * block[near] >= np.float32(top - width)]
    if len(flat) < min_run:
        return 0
    is_first = np.diff(flat, prepend=-2) > 1
    start = flat[is_first]
    length = np.diff(np.append(np.flatnonzero(is_first), len(flat)))
    start, length = start[length >= min_run], length[length >= min_run]
    if len(start) == 0:
        return 0
    if not np.any(block[::97] / COARSE_STEP % 1):  # 8-bit audio, whose smooth tops are flat
        width = max(width, COARSE_STEP)
    beyond = (length + 1) // 2
    corners = np.stack([np.maximum(start - beyond, 0), np.minimum(start + length - 1 + beyond, len(block) - 1)])
    return int(length[top - (np.float32(sign) * block[corners]).max(axis=0) > CLIPPED_FALL * width].sum())


@lru_cache(maxsize=8)
def _window(length: int) -> np.ndarray:
    """Periodic Hann window (length,)."""
    return np.hanning(length + 1)[:-1].astype(np.float32)


def _spectrum(samples: np.ndarray, frame: int, loud_frames: np.ndarray, dc_offset: float) -> np.ndarray:
    """Mean power, (bins,), of at most `MAX_LOUD_FRAMES` of the frames, spread evenly; zeros where there are none."""
    chosen = loud_frames[:: 1 + len(loud_frames) // MAX_LOUD_FRAMES]
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)[chosen] - np.float32(dc_offset)
    power = np.square(np.abs(np.fft.rfft(frames * _window(frame))))  # (frames, bins)
    return power.sum(axis=0, dtype=np.float64) / max(1, len(chosen))


def _cutoff(spectrum: np.ndarray, bin_hz: float) -> float | None:
    """Hz of the cliff in a spectrum (bins,): filled below, a steep fall, and near-silence from there on."""
    width = max(1, round(CLIFF_WIDTH_HZ / bin_hz))
    if len(spectrum) <= 3 * width:
        return None
    levels = 10.0 * np.log10(spectrum + 1e-15 * spectrum.max())
    if levels.max() - levels[-width:].max() < CLIFF_DEPTH_DB:
        return None  # it is not quiet up there
    windows = np.lib.stride_tricks.sliding_window_view(levels, width)
    below, above = windows[: -2 * width], windows[2 * width :]  # row k: the bands that end and begin `width` apart
    highest_above = np.maximum.accumulate(levels[::-1])[::-1][2 * width :][: len(below)]
    drop = below.min(axis=1) - above.max(axis=1)  # of the lowest bin below: lines of a tone fill no band
    is_cliff = (drop > CLIFF_DROP_DB) & (10.0 * np.log10(_ratio(below).mean(axis=1)) - highest_above >= CLIFF_DEPTH_DB)
    if not is_cliff.any():
        return None
    k = int(np.argmax(np.where(is_cliff, drop, -np.inf)))
    cutoff_hz = float(np.flatnonzero(levels > (below[k].min() + highest_above[k]) / 2)[-1] * bin_hz)
    return cutoff_hz if MIN_CUTOFF_HZ <= cutoff_hz < MAX_CUTOFF_HZ else None


def _flatness(spectrum: np.ndarray) -> float:
    """Geometric over arithmetic mean of (bins,); 0 where there is no energy."""
    return float(np.exp(np.mean(np.log(spectrum))) / spectrum.mean()) if spectrum.size and spectrum.all() else 0.0


def input_warnings(measures: InputMeasures) -> list[str]:
    """One sentence for every fault, each beginning with its key word and a colon."""
    offset, level = measures.dc_offset, _ratio(measures.level_db / 2)  # dB to amplitude
    rise_db = measures.loud_db - measures.noise_floor_db
    is_steady = measures.noise_floor_db > NOISE_FLOOR_DB and rise_db < NOISE_RISE_DB
    is_white = is_steady and measures.flatness > NOISE_FLATNESS and measures.duration_s >= NOISE_MIN_S
    faults = {
        "too_quiet": measures.peak_db < QUIET_PEAK_DB,
        "clipped": measures.clipped_share > CLIPPED_SHARE,
        "band_limited": measures.cutoff_hz is not None,
        "off_centre": abs(offset) > max(DC_LEVEL, DC_TO_LEVEL * level),
        "noisy": is_white,
    }
    values = {**vars(measures), "clipped_percent": 100 * measures.clipped_share}
    return [SENTENCES[name].format(**values) for name, is_fault in faults.items() if is_fault]


def all_warnings(clip: "AudioClip", measures: InputMeasures | None = None) -> list[str]:
    """The warnings of `read_audio`, then the measured ones whose key word is not among them."""
    given = {key_word(warning) for warning in clip.warnings}
    if any(word.startswith("silent") for word in given):
        given.add("too quiet")
    measures = measure_input(clip.samples, clip.sampling_rate) if measures is None else measures
    return [*clip.warnings, *(one for one in input_warnings(measures) if key_word(one) not in given)]


def key_word(warning: str) -> str:
    """What stands before the colon of a warning, for example "clipped"."""
    return warning.split(":", 1)[0]


__all__ = ["InputMeasures", "SENTENCES", "all_warnings", "input_warnings", "key_word", "measure_input"]
