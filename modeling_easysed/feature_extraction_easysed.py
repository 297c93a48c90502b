"""The log-mel front end: 16 kHz mono samples to normalised log-mel frames, the same in training and in inference.

Frame t is centred at sample t x hop (the signal is padded with zeros, not mirrored, so that a batch padded with zeros
gives the same frames as its single clips); with the transform "kaldi" it begins there. The mel filters live here, not
in the network: they are made from the saved sizes, in float32 or better whatever the network's dtype is."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature

from .ast_checkpoint_easysed import ast_normalisation, load_ast_features
from .kaldi_easysed import kaldi_log_mel, kaldi_mel_filters, num_whole_frames

POWER_FLOOR = 1e-10  # -100 dB: below the quantisation noise of 16 bits, above float32's smallest numbers
TRANSFORMS = ("centered", "kaldi")
DB_PER_NEPER = 10.0 / math.log(10.0)  # of power: a natural logarithm of 1 is so many dB


class EasySEDFeatureExtractor(SequenceFeatureExtractor):
    """Turns mono samples into `input_values` (batch, frames, mels) and `attention_mask` (batch, frames).

    Args:
        feature_size: mel bands.
        sampling_rate: Hz that the samples must have.
        hop_length_samples: samples between frames (160 = 10 ms).
        window_length_samples: samples of the Hann window (400 = 25 ms).
        fft_length_samples: FFT size, at least the window.
        min_frequency_hz, max_frequency_hz: range of the mel bands; None = up to half the sampling rate.
        mel_mean, mel_std: per mel band, dB, fitted on training audio and saved with the checkpoint; None = 0 and 1.
        transform: "centered" (frames around multiples of the hop) or "kaldi" (that of the Audio Spectrogram
            Transformer, see kaldi_easysed).
        min_num_frames: shorter clips are filled up to so many frames.
        padding_value: what follows a clip in `input_values`.

    Raises:
        ValueError: when a value breaks a rule.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        hop_length_samples: int = 160,
        window_length_samples: int = 400,
        fft_length_samples: int = 512,
        min_frequency_hz: float = 50.0,
        max_frequency_hz: float | None = None,
        mel_mean: list[float] | None = None,
        mel_std: list[float] | None = None,
        transform: str = "centered",
        min_num_frames: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        if not 0 < window_length_samples <= fft_length_samples:
            raise ValueError(
                f"window_length_samples must be in 1..fft_length_samples={fft_length_samples}, "
                f"got {window_length_samples}"
            )
        for name, values in (("mel_mean", mel_mean), ("mel_std", mel_std)):
            if values is not None and len(values) != feature_size:
                raise ValueError(f"{name} must have feature_size={feature_size} values, got {len(values)}")
        if transform not in TRANSFORMS:
            raise ValueError(f"transform must be one of {TRANSFORMS}, got {transform!r}")
        self.transform = transform
        self.min_num_frames = min_num_frames
        self.hop_length_samples = hop_length_samples
        self.window_length_samples = window_length_samples
        self.fft_length_samples = fft_length_samples
        self.min_frequency_hz = min_frequency_hz
        self.max_frequency_hz = max_frequency_hz
        self.mel_mean = mel_mean
        self.mel_std = mel_std
        self.mel_filters = self._mel_filters()
        self.window = torch.hann_window(window_length_samples)
        if transform == "kaldi":
            self.window = torch.hann_window(window_length_samples, periodic=False, dtype=torch.float64)

    @classmethod
    def from_ast(cls, name_or_path: str | Path, **hub_kwargs: Any) -> "EasySEDFeatureExtractor":
        """The features of transformers' `ASTFeatureExtractor`, with equal values.

        A clip longer than its `max_length` keeps all its frames: the pipeline cuts them into windows.

        Args:
            name_or_path: folder or Hub id of an Audio Spectrogram Transformer.
            **hub_kwargs: of transformers' `from_pretrained`: `revision`, `token`, `cache_dir`, `local_files_only`.

        Raises:
            ValueError: for another sampling rate than 16 kHz.
            OSError: no such checkpoint.
        """
        features = load_ast_features(name_or_path, **hub_kwargs)
        mean, divisor = ast_normalisation(features)
        return cls(
            feature_size=features.num_mel_bins,
            sampling_rate=features.sampling_rate,
            padding_value=-mean / divisor,
            min_frequency_hz=20.0,
            mel_mean=[mean * DB_PER_NEPER] * features.num_mel_bins,
            mel_std=[divisor * DB_PER_NEPER] * features.num_mel_bins,
            transform="kaldi",
            min_num_frames=features.max_length,
        )

    def _mel_filters(self) -> torch.Tensor:
        upper = self.sampling_rate / 2 if self.max_frequency_hz is None else self.max_frequency_hz
        if self.transform == "kaldi":
            sizes = (self.feature_size, self.fft_length_samples)
            return kaldi_mel_filters(*sizes, self.min_frequency_hz, upper, self.sampling_rate)
        filters = mel_filter_bank(
            num_frequency_bins=self.fft_length_samples // 2 + 1,
            num_mel_filters=self.feature_size,
            min_frequency=self.min_frequency_hz,
            max_frequency=upper,
            sampling_rate=self.sampling_rate,
            norm=None,
            mel_scale="htk",
        )
        return torch.from_numpy(filters).float()  # (fft bins, mels)

    def mel_hz(self) -> np.ndarray:
        """(mels,), Hz, the centres of the mel bands; of one without a bin of the transform, between its neighbours."""
        filters = self.mel_filters.numpy().astype(np.float64)
        # (fft bins, mels)
        bins_hz = np.arange(len(filters)) * self.sampling_rate / self.fft_length_samples
        weights = filters.sum(axis=0)
        centres = bins_hz @ filters / np.maximum(weights, 1e-12)
        known = np.flatnonzero(weights > 0)
        return np.interp(np.arange(len(centres)), known, centres[known])

    def log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        """Log-mel power in dB, not normalised.

        Args:
            samples: (batch, samples), full scale 1.

        Returns:
            (batch, 1 + samples // hop, mels).
        """
        device = samples.device
        if self.transform == "kaldi":
            sizes = (self.hop_length_samples, self.fft_length_samples)
            return kaldi_log_mel(samples, self.mel_filters, self.window, *sizes)
        spectrum = torch.stft(
            samples.float(),
            self.fft_length_samples,
            hop_length=self.hop_length_samples,
            win_length=self.window_length_samples,
            window=self.window.to(device),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        # (batch, fft bins, frames)
        mel = power.transpose(1, 2) @ self.mel_filters.to(device)
        # (batch, frames, mels)
        return 10.0 * torch.log10(mel.clamp_min(POWER_FLOOR))

    def normalize(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Subtracts the saved mean and divides by the saved deviation of every mel band; shape kept."""
        if self.mel_mean is None or self.mel_std is None:
            return log_mel
        mean = torch.tensor(self.mel_mean, device=log_mel.device)
        std = torch.tensor(self.mel_std, device=log_mel.device)
        return (log_mel - mean) / std

    def num_frames(self, num_samples: int) -> int:
        """Log-mel frames of a clip of `num_samples` samples."""
        return 1 + num_samples // self.hop_length_samples

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """Normalised frames (frames, mels) of one clip (samples,) at the extractor's rate."""
        return self(samples, sampling_rate=self.sampling_rate).input_values[0].numpy()

    def _num_heard_frames(self, num_samples: int) -> int:
        """Those of them that hold sound; with "kaldi", the last ones hold what follows a clip."""
        if self.transform == "kaldi":
            return num_whole_frames(num_samples, self.window_length_samples, self.hop_length_samples)
        return self.num_frames(num_samples)

    def __call__(
        self,
        audio: np.ndarray | torch.Tensor | list,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        device: str | torch.device = "cpu",
        **kwargs: Any,
    ) -> BatchFeature:
        """Features of one clip (samples,) or of a batch: list of such clips, or (batch, samples).

        Args:
            audio: mono samples, full scale 1.
            sampling_rate: Hz of `audio`; must equal the extractor's.
            return_tensors: "pt", "np" or None.
            device: where the transform runs.

        Returns:
            `input_values` (batch, frames, mels), `padding_value` after a clip's end; `attention_mask` (batch, frames),
            1 = real.

        Raises:
            ValueError: missing or other sampling rate, no samples, more than one channel, NaN or infinity.
        """
        if sampling_rate != self.sampling_rate:
            raise ValueError(
                f"sampling_rate must be the model's {self.sampling_rate} Hz, got {sampling_rate}: pass sampling_rate "
                f"and resample first (SoundEventDetectionPipeline does both)"
            )
        clips = [self._as_clip(clip) for clip in _as_list(audio)]
        samples = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True).to(device)
        features = self.normalize(self.log_mel(samples))
        missing = max(0, self.min_num_frames - features.shape[1])
        features = torch.nn.functional.pad(features, (0, 0, 0, missing))
        heard = self._frame_mask([self._num_heard_frames(len(clip)) for clip in clips], features)
        features = features.masked_fill(~heard[:, :, None], self.padding_value)
        mask = self._frame_mask([self.num_frames(len(clip)) for clip in clips], features)
        data = {"input_values": features, "attention_mask": mask.long()}
        if return_tensors in (None, "np"):
            data = {name: value.cpu().numpy() for name, value in data.items()}
        return BatchFeature(data)

    @staticmethod
    def _frame_mask(num_frames: list[int], features: torch.Tensor) -> torch.Tensor:
        """(batch, frames), true for the first `num_frames` of each clip."""
        device = features.device
        counts = torch.tensor(num_frames, device=device)
        return torch.arange(features.shape[1], device=device)[None] < counts[:, None]

    def _as_clip(self, clip: np.ndarray | torch.Tensor | list) -> torch.Tensor:
        samples = torch.as_tensor(np.asarray(clip) if isinstance(clip, list) else clip)
        if samples.ndim != 1:
            raise ValueError(f"a clip must be mono with shape (samples,), got {tuple(samples.shape)}: mix it")
        if len(samples) == 0:
            raise ValueError("a clip must have at least 1 sample, got 0")
        if not torch.is_floating_point(samples):
            raise ValueError(f"samples must be floating point with full scale 1, got {samples.dtype}: divide first")
        if not torch.isfinite(samples).all():
            raise ValueError("samples must be finite, got NaN or infinity: repair or cut the recording")
        return samples.float()


def _as_list(audio: np.ndarray | torch.Tensor | list) -> list:
    """A batch as a list of clips; a flat list of numbers is one clip."""
    if isinstance(audio, list):
        return [audio] if not audio or np.isscalar(audio[0]) else audio
    return [audio] if audio.ndim == 1 else list(audio)


EasySEDFeatureExtractor.register_for_auto_class()

__all__ = ["EasySEDFeatureExtractor"]
