"""Augmentation of log-mel features in decibels: what another microphone, room or distance would do to them."""

import numpy as np
import torch

MAX_GAIN_DB = 6.0
MAX_FILTER_DB = 6.0
NUM_FILTER_POINTS = 5
MAX_MASKED_MELS = 8
NUM_MEL_MASKS = 2


def augment_features(log_mel: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random gain, smooth filter and mel masks per clip.

    Args:
        log_mel: (batch, frames, mels) in dB.
        rng: source of all randomness.

    Returns:
        The same shape. Source: Nam et al. 2022, FilterAugment; Park et al. 2019, SpecAugment (masks filled with the
        clip's mean).
    """
    batch, _, mels = log_mel.shape
    points = rng.uniform(-MAX_FILTER_DB, MAX_FILTER_DB, size=(batch, NUM_FILTER_POINTS))
    places, grid = np.linspace(0, 1, NUM_FILTER_POINTS), np.linspace(0, 1, mels)
    offset = np.stack([np.interp(grid, places, row) for row in points])
    offset += rng.uniform(-MAX_GAIN_DB, MAX_GAIN_DB, size=(batch, 1))
    augmented = log_mel + torch.from_numpy(offset).float()[:, None, :]
    return mask_mels(augmented, rng)


def mask_mels(log_mel: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Replaces up to two bands of up to 8 mels per clip by the clip's mean."""
    batch, _, mels = log_mel.shape
    masked = torch.zeros(batch, 1, mels, dtype=torch.bool)
    for clip in range(batch):
        for _ in range(NUM_MEL_MASKS):
            width = int(rng.integers(MAX_MASKED_MELS + 1))
            start = int(rng.integers(mels - width + 1))
            masked[clip, :, start : start + width] = True
    mean = log_mel.mean(dim=(1, 2), keepdim=True)
    return torch.where(masked, mean, log_mel)
