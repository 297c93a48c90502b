"""Kaldi's log-mel transform, as the Audio Spectrogram Transformer was trained with: frames that lie wholly in the clip,
each without its mean and with its treble raised, Hann windowed, mel bands that are triangles on the mel scale.

Source: `ASTFeatureExtractor` of transformers and `kaldi.fbank` of torchaudio, whose values these are."""

import contextlib
import warnings
from collections.abc import Iterator

import torch
from transformers.audio_utils import mel_filter_bank

POWER_FLOOR = 1.192092955078125e-07  # float32's epsilon
PREEMPHASIS = 0.97
FILLING_DB = 0.0  # of frames after the last whole one, as AST pads its log-mel frames


def kaldi_mel_filters(
    num_mels: int, fft_length: int, min_frequency_hz: float, max_frequency_hz: float, sampling_rate: int
) -> torch.Tensor:
    """Mel filters (fft bins, mels), float64."""
    with without_filter_warning():
        filters = mel_filter_bank(
            num_frequency_bins=fft_length // 2 + 1,
            num_mel_filters=num_mels,
            min_frequency=min_frequency_hz,
            max_frequency=max_frequency_hz,
            sampling_rate=sampling_rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
    return torch.from_numpy(filters).double()


@contextlib.contextmanager
def without_filter_warning() -> Iterator[None]:
    """Keeps a warning off the screen: of AST's 128 mel bands the lowest are narrower than a bin, and it learned so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
        yield


def num_whole_frames(num_samples: int, window_length: int, hop_length: int) -> int:
    """Frames that lie wholly in a clip, e.g. 1 + (160000 - 400) // 160 = 998; 0 for a clip shorter than a window."""
    return 0 if num_samples < window_length else 1 + (num_samples - window_length) // hop_length


def kaldi_log_mel(
    samples: torch.Tensor, filters: torch.Tensor, window: torch.Tensor, hop_length: int, fft_length: int
) -> torch.Tensor:
    """Log-mel power in dB.

    Args:
        samples: (batch, samples), full scale 1.
        filters: (fft bins, mels) from `kaldi_mel_filters`.
        window: (window length,).
        hop_length, fft_length: samples.

    Returns:
        (batch, 1 + samples // hop, mels), float32; frame t begins at t x hop, those after the last whole one are 0 dB.
    """
    num_frames = 1 + samples.shape[1] // hop_length
    if samples.shape[1] < len(window):
        return samples.new_full((len(samples), num_frames, filters.shape[1]), FILLING_DB, dtype=torch.float32)
    # float32 would lose mel bands far below the loudest one; Apple's GPUs have nothing else
    precision = torch.float32 if samples.device.type == "mps" else torch.float64
    frames = samples.to(precision).unfold(1, len(window), hop_length)
    # (batch, whole frames, window length)
    frames = frames - frames.mean(-1, keepdim=True)
    previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    spectrum = torch.fft.rfft((frames - PREEMPHASIS * previous) * window.to(frames), n=fft_length)
    power = spectrum.real.square() + spectrum.imag.square()
    # (batch, whole frames, fft bins)
    log_mel = 10.0 * torch.log10((power @ filters.to(power)).clamp_min(POWER_FLOOR))
    missing = num_frames - log_mel.shape[1]
    return torch.nn.functional.pad(log_mel.float(), (0, 0, 0, missing), value=FILLING_DB)


__all__ = ["FILLING_DB", "kaldi_log_mel", "kaldi_mel_filters", "num_whole_frames", "without_filter_warning"]
