"""The log-mel front end in numpy: the frames of `EasySEDFeatureExtractor` with the transform "centered".

A frame is folded around its middle before the transform: the Hann window is symmetric around it, so the cosines see
only the even part and the sines only the odd one. Two matrix products then cost less than a Fast Fourier Transform."""

from typing import Any

import numpy as np

POWER_FLOOR = 1e-10  # as in feature_extraction_easysed
DB_PER_NEPER = np.float32(10.0 / np.log(10.0))
BLOCK_FRAMES = 400  # whose spectra are made at once: they stay in a processor's cache


class ArrayLogMel:
    """Samples to normalised log-mel frames.

    Args:
        saved: what preprocessor_config.json holds.

    Raises:
        ValueError: another transform, an odd window, or clips that are filled up.
    """

    def __init__(self, saved: dict[str, Any]) -> None:
        if saved["transform"] != "centered" or saved["min_num_frames"] > 0:
            raise ValueError(f"transform must be 'centered' without filling up, got {saved['transform']!r}")
        if saved["window_length_samples"] % 2:
            raise ValueError(f"window_length_samples must be even, got {saved['window_length_samples']}")
        self.sampling_rate: int = saved["sampling_rate"]
        self.hop_length_samples: int = saved["hop_length_samples"]
        self.window_length_samples: int = saved["window_length_samples"]
        self.fft_length_samples: int = saved["fft_length_samples"]
        self.feature_size: int = saved["feature_size"]
        self.mel_mean: list[float] | None = saved["mel_mean"]
        self.mel_std: list[float] | None = saved["mel_std"]
        upper = saved["max_frequency_hz"]
        self.mel_filters = mel_filters(
            self.fft_length_samples // 2 + 1,
            self.feature_size,
            saved["min_frequency_hz"],
            self.sampling_rate / 2 if upper is None else upper,
            self.sampling_rate,
        )
        self.half = self.window_length_samples // 2
        self.cosines, self.sines = folded_fourier(self.window_length_samples, self.fft_length_samples)

    def num_frames(self, num_samples: int) -> int:
        """Log-mel frames of a clip of `num_samples` samples."""
        return 1 + num_samples // self.hop_length_samples

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """Normalised frames (frames, mels) of one clip (samples,) at the extractor's rate, mono, full scale 1."""
        padded = np.zeros(len(samples) + 2 * self.half, np.float32)
        padded[self.half : self.half + len(samples)] = samples
        pieces = np.lib.stride_tricks.sliding_window_view(padded, 2 * self.half)
        pieces = pieces[:: self.hop_length_samples][: self.num_frames(len(samples))]
        blocks = [self._log_mel(pieces[start : start + BLOCK_FRAMES]) for start in range(0, len(pieces), BLOCK_FRAMES)]
        log_mel = np.concatenate(blocks)
        if self.mel_mean is None or self.mel_std is None:
            return log_mel
        log_mel -= np.asarray(self.mel_mean, np.float32)
        log_mel /= np.asarray(self.mel_std, np.float32)
        return log_mel

    def _log_mel(self, pieces: np.ndarray) -> np.ndarray:
        """dB (frames, mels) of windows (frames, samples) around their frames' samples."""
        before, after = pieces[:, self.half : 0 : -1], pieces[:, self.half :]
        # (frames, half a window), both from the middle outwards
        power, other = (after + before) @ self.cosines, (after - before) @ self.sines
        # (frames, fft bins)
        power *= power
        other *= other
        power += other
        mels = power @ self.mel_filters
        np.maximum(mels, np.float32(POWER_FLOOR), out=mels)
        np.log(mels, out=mels)
        mels *= DB_PER_NEPER
        return mels

    def mel_hz(self) -> np.ndarray:
        """(mels,), Hz, the centres of the mel bands, as `EasySEDFeatureExtractor.mel_hz`."""
        filters = self.mel_filters.astype(np.float64)
        bins_hz = np.arange(len(filters)) * self.sampling_rate / self.fft_length_samples
        weights = filters.sum(axis=0)
        centres = bins_hz @ filters / np.maximum(weights, 1e-12)
        known = np.flatnonzero(weights > 0)
        return np.interp(np.arange(len(centres)), known, centres[known])


def folded_fourier(window_length: int, fft_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Windowed cosines and sines, each (half a window, fft bins), that turn folded frames into a spectrum.

    Row m is m samples from the middle; row 0 counts twice in the folded frame, so half of it stands here. The periodic
    Hann window is zero at its first sample, the only one without a partner.
    """
    half = window_length // 2
    window = 0.5 + 0.5 * np.cos(2 * np.pi * np.arange(half) / window_length)
    window[0] /= 2.0
    steps = np.arange(half)[:, None] * np.arange(fft_length // 2 + 1) % fft_length  # whole numbers: exact angles
    angles = 2.0 * np.pi / fft_length * steps
    return tuple((wave(angles) * window[:, None]).astype(np.float32) for wave in (np.cos, np.sin))


def mel_filters(num_bins: int, num_mels: int, lowest_hz: float, highest_hz: float, sampling_rate: int) -> np.ndarray:
    """Triangular filters (bins, mels) on the HTK mel scale, peaks of 1: transformers' `mel_filter_bank`.

    Here because that library takes longer to import than a clip to analyse.
    """
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (lowest_hz, highest_hz))
    edges_hz = 700.0 * (10.0 ** (np.linspace(low, high, num_mels + 2) / 2595.0) - 1.0)
    bins_hz = np.linspace(0, sampling_rate // 2, num_bins)
    slopes = edges_hz[None, :] - bins_hz[:, None]
    widths = np.diff(edges_hz)
    return np.maximum(0.0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:])).astype(np.float32)


__all__ = ["ArrayLogMel", "folded_fourier", "mel_filters"]
