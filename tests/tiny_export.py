"""Tiny checkpoints to export, signals, and what PyTorch says of them."""

import csv
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from tiny import tiny_model

from modeling_easysed import EasySEDFeatureExtractor, EasySEDForSoundEventDetection
from modeling_easysed.export.check import whole_hops
from modeling_easysed.feature_extraction_easysed import POWER_FLOOR

RATE, HOP, HALF = 16000, 160, 200
KINDS = {"cnn": {}, "transformer": {}, "cnn, block sampled": {"backbone": "cnn", "monte_carlo_blocks": 1}}


def tiny_checkpoint(folder: Path, kind: str) -> str:
    """A tiny random model that finds events in noise, with windows of 2 s."""
    sizes = {"backbone": kind, "window_s": 2.0, "context_s": 0.6, **KINDS[kind]}
    model = tiny_model(**sizes)
    for head in model.exits:
        torch.nn.init.normal_(head.classifier.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.zeros_(head.classifier.bias)
    model.save_pretrained(folder)
    EasySEDFeatureExtractor(feature_size=32, mel_mean=[-40.0] * 32, mel_std=[15.0] * 32).save_pretrained(folder)
    return str(folder)


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose level rises and falls."""
    level = 0.02 + np.abs(np.sin(np.arange(num_samples) / 9000.0)) ** 3
    return (0.3 * level * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def real_clips(data_dir: Path, number: int) -> dict[str, np.ndarray]:
    """Every n-th clip of ESC-10 at the models' rate, then silence and noise at full scale."""
    with (data_dir / "esc10" / "metadata.csv").open(newline="") as file:
        names = sorted(row["file_name"] for row in csv.DictReader(file))
    clips = {}
    for name in names[:: len(names) // number][:number]:
        samples, rate = soundfile.read(data_dir / "esc10" / name, dtype="float32")
        clips[name] = soxr.resample(samples, rate, RATE)
    clips["silence"] = np.zeros(10 * RATE, np.float32)
    clips["full-scale noise"] = np.random.default_rng(0).uniform(-1, 1, 10 * RATE).astype(np.float32)
    return clips


def exact_features(extractor: EasySEDFeatureExtractor, samples: np.ndarray) -> torch.Tensor:
    """(1, frames, mels) with a spectrum in float64. A loud clip with almost empty bands shows float32's rounding in
    both front ends, in PyTorch's own more than in the exported one."""
    sizes = extractor.fft_length_samples, extractor.hop_length_samples, extractor.window_length_samples
    window = torch.hann_window(sizes[2], dtype=torch.float64)
    waveform = torch.from_numpy(samples)[None].double()
    spectrum = torch.stft(waveform, *sizes, window, center=True, pad_mode="constant", return_complex=True)
    mel = spectrum.abs().square().transpose(1, 2) @ extractor.mel_filters.double()
    log_mel = 10.0 * torch.log10(mel.clamp_min(POWER_FLOOR))
    return ((log_mel - torch.tensor(extractor.mel_mean)) / torch.tensor(extractor.mel_std)).float()


def deviations(run, model: EasySEDForSoundEventDetection, extractor, masks, clips: dict) -> dict[str, float]:
    """Over all frame probabilities of all clips, the exported file against `monte_carlo` with seed 3.

    Returns:
        "mean": of the mean over passes, which is what a detection shows; "pass": of every single pass, "exact": of
        every single pass against PyTorch on exact features.
    """
    worst = {"mean": 0.0, "pass": 0.0, "exact": 0.0}
    for samples in clips.values():
        given = torch.from_numpy(run(*whole_hops(samples, HOP, HALF), masks)[0]).sigmoid()
        for features in ("pass", "exact"):
            values = exact_features(extractor, samples)
            if features == "pass":
                values = extractor(samples, sampling_rate=RATE).input_values
            expected = model.monte_carlo(values, passes=len(masks), seed=3).frame_logits.sigmoid()
            assert given.shape == expected.shape
            worst[features] = max(worst[features], float((given - expected).abs().max()))
            if features == "pass":
                worst["mean"] = max(worst["mean"], float((given.mean(0) - expected.mean(0)).abs().max()))
    return worst
