"""The log-mel front end in numpy: the frames of `EasySEDFeatureExtractor` with the transform "centered"."""

from typing import Any

import numpy as np

POWER_FLOOR = 1e-10  # as in feature_extraction_easysed
DB_PER_NEPER = np.float32(10.0 / np.log(10.0))
BLOCK_FRAMES = 2000  # whose spectra are in memory at once


class ArrayLogMel:
    """Samples to normalised log-mel frames.

    Args:
        saved: what preprocessor_config.json holds.

    Raises:
        ValueError: another transform, or clips that are filled up.
    """

    def __init__(self, saved: dict[str, Any]) -> None:
        if saved.get("transform", "centered") != "centered" or saved.get("min_num_frames", 0) > 0:
            raise ValueError(f"transform must be 'centered' without filling up, got {saved.get('transform')!r}")
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
        steps = np.arange(self.window_length_samples) / self.window_length_samples
        self.window = (0.5 - 0.5 * np.cos(2 * np.pi * steps)).astype(np.float32)  # Hann, periodic

    def num_frames(self, num_samples: int) -> int:
        """Log-mel frames of a clip of `num_samples` samples."""
        return 1 + num_samples // self.hop_length_samples

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """Normalised frames (frames, mels) of one clip (samples,) at the extractor's rate, mono, full scale 1."""
        # The window lies in the middle of the transform, whose middle is the frame's sample.
        before = self.fft_length_samples // 2 - (self.fft_length_samples - self.window_length_samples) // 2
        padded = np.pad(np.asarray(samples, np.float32), (before, self.window_length_samples - before))
        pieces = np.lib.stride_tricks.sliding_window_view(padded, self.window_length_samples)
        pieces = pieces[:: self.hop_length_samples][: self.num_frames(len(samples))]
        blocks = [self._log_mel(pieces[start : start + BLOCK_FRAMES]) for start in range(0, len(pieces), BLOCK_FRAMES)]
        log_mel = np.concatenate(blocks)
        if self.mel_mean is None or self.mel_std is None:
            return log_mel
        return (log_mel - np.asarray(self.mel_mean, np.float32)) / np.asarray(self.mel_std, np.float32)

    def _log_mel(self, pieces: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(pieces * self.window, self.fft_length_samples)
        power = spectrum.real**2 + spectrum.imag**2
        # (frames, fft bins)
        return DB_PER_NEPER * np.log(np.maximum(power @ self.mel_filters, np.float32(POWER_FLOOR)))

    def mel_hz(self) -> np.ndarray:
        """(mels,), Hz, the centres of the mel bands, as `EasySEDFeatureExtractor.mel_hz`."""
        filters = self.mel_filters.astype(np.float64)
        bins_hz = np.arange(len(filters)) * self.sampling_rate / self.fft_length_samples
        weights = filters.sum(axis=0)
        centres = bins_hz @ filters / np.maximum(weights, 1e-12)
        known = np.flatnonzero(weights > 0)
        return np.interp(np.arange(len(centres)), known, centres[known])


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


__all__ = ["ArrayLogMel", "mel_filters"]
