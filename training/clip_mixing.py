"""Training examples for clip classification, mixed from log-mel features: two clips, a noise bed, another microphone.

Powers add, so that a mixture of clips is a sum of their mel powers (the cross terms vanish on average): nothing but the
bank of variants is ever computed from samples. Source: Tokozume et al. 2018, Learning from Between-class Examples, ICLR
(mixtures of two sounds, at levels that make both heard)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from data import Clip
from soundscapes import SILENCE_DB, Recipe, find_events, random_variant
from tqdm import tqdm

from modeling_easysed import EasySEDFeatureExtractor

DB = np.log(10) / 10  # natural logarithm of a power per decibel
NOISE_RIPPLE_DB = 2.0
NOISE_SLOPE_DB = (-0.4, 0.1)  # per mel band
NUM_FILTER_POINTS = 5


@dataclass
class ClipRecipe:
    """How clips are mixed; ranges are uniform.

    Attributes:
        num_variants: resampled and filtered variants of every clip (1 = the clip itself alone).
        variants: arguments of soundscapes.Recipe, for how they are made.
        frames: length of an example, log-mel frames.
        mix_probability: share of the examples that hold two clips.
        mix_level_db: level of the second clip against the first.
        noise_probability: share with a bed of coloured noise; noise_below_db: how far below the loudest point it lies.
        filter_db: strength of a random smooth filter.
        num_mel_masks, max_masked_mels: bands replaced by the example's mean.
    """

    num_variants: int = 6
    variants: dict[str, Any] = field(default_factory=dict)
    frames: int = 300
    mix_probability: float = 0.7
    mix_level_db: tuple[float, float] = (-12.0, 12.0)
    noise_probability: float = 0.5
    noise_below_db: tuple[float, float] = (25.0, 60.0)
    gain_db: tuple[float, float] = (-10.0, 6.0)
    filter_db: float = 6.0
    num_mel_masks: int = 2
    max_masked_mels: int = 8


@dataclass
class BankedClip:
    """One clip: samples, `variants` of (log-mel (frames, mels) in dB, activity (frames,)), class index, source."""

    samples: np.ndarray
    variants: list[tuple[torch.Tensor, torch.Tensor]]
    label: int
    source: str


def build_bank(
    clips: Sequence[Clip],
    labels: list[str],
    extractor: EasySEDFeatureExtractor,
    recipe: ClipRecipe,
    seed: int,
    first: int = 0,
) -> list[BankedClip]:
    """Features of all variants of all clips; the first variant of a clip is the clip itself.

    `first` is the number of the first clip. Seed and number decide a clip's variants, so that a list may be made in
    parts. Half precision: the rounding, at most 0.05 dB, is far below what augmentation does.
    """
    bank, making = [], Recipe(**recipe.variants)
    for number, clip in enumerate(tqdm(clips, desc="computing features", disable=not sys.stderr.isatty()), first):
        rng = np.random.default_rng([seed, 11, number])
        variants = [clip.samples]
        variants += [random_variant(clip.samples, making, rng) for _ in range(recipe.num_variants - 1)]
        members = []
        for samples in variants:
            log_mel = extractor.log_mel(torch.from_numpy(samples)[None])[0]
            members.append((log_mel.half(), activity(replace(clip, samples=samples), extractor, len(log_mel))))
        bank.append(BankedClip(clip.samples, members, labels.index(clip.label), clip.source))
    return bank


def activity(clip: Clip, extractor: EasySEDFeatureExtractor, num_frames: int) -> torch.Tensor:
    """(frames,) 1 where the clip's class sounds; a clip in which nothing stands out sounds throughout."""
    rate, recipe = extractor.sampling_rate, Recipe()
    if clip.label in recipe.textures:
        loud = np.flatnonzero(np.abs(clip.samples) > 10 ** (SILENCE_DB / 20))
        events = [(loud[0] / rate, loud[-1] / rate)] if len(loud) else []
    else:
        gap_s = recipe.gap_s.get(clip.label, recipe.default_gap_s)
        events = find_events(clip.samples, rate, recipe.threshold_db, gap_s, recipe.min_duration_s)
    hop_s = extractor.hop_length_samples / rate
    active = torch.zeros(num_frames)
    for onset, offset in events:
        active[int(onset / hop_s) : int(np.ceil(offset / hop_s))] = 1
    return active if active.any() else torch.ones(num_frames)


def mean_and_deviation(bank: Sequence[BankedClip]) -> dict[str, list[float]]:
    """mel_mean and mel_std of a feature extractor, from the clips themselves."""
    stacked = torch.cat([clip.variants[0][0].float() for clip in bank])
    # (frames, mels)
    statistics = {"mel_mean": stacked.mean(0), "mel_std": stacked.std(0)}
    return {name: [round(x, 4) for x in values.tolist()] for name, values in statistics.items()}


# ---- examples --------------------------------------------------------------------------------------------------------


def crop(clip: BankedClip, frames: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A stretch of a random variant with part of its event inside: log-mel (frames, mels), activity (frames,).

    It may reach over the clip's ends by a quarter; there stands the clip's quietest value.
    """
    log_mel, active = clip.variants[rng.integers(len(clip.variants))]
    log_mel = log_mel.float()
    heard = torch.nonzero(active).ravel().numpy()
    start = int(heard[rng.integers(len(heard))] - rng.integers(frames))
    start = int(np.clip(start, -(frames // 4), max(len(log_mel) - frames + frames // 4, 0)))
    first, last = max(start, 0), min(start + frames, len(log_mel))
    example = torch.full((frames, log_mel.shape[1]), log_mel.min().item())
    sounding = torch.zeros(frames)
    example[first - start : last - start] = log_mel[first:last]
    sounding[first - start : last - start] = active[first:last]
    return example, sounding


def add_powers(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """dB of the sum of two powers given in dB."""
    return torch.logaddexp(first * DB, second * DB) / DB


def level(log_mel: torch.Tensor) -> torch.Tensor:
    """Energy of (frames, mels) in dB, up to a constant."""
    return torch.logsumexp(log_mel.flatten() * DB, 0) / DB


def colored_bed(like: torch.Tensor, recipe: ClipRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Noise of a random slope below the loudest point of `like` (frames, mels), in dB."""
    frames, mels = like.shape
    top = like.max().item() - rng.uniform(*recipe.noise_below_db)
    ripple = rng.standard_normal((frames, mels)) * NOISE_RIPPLE_DB
    return torch.from_numpy(top + rng.uniform(*NOISE_SLOPE_DB) * np.arange(mels) + ripple).float()


def random_filter(mels: int, recipe: ClipRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Gain (mels,) of another microphone or room, dB, smooth over frequency, with a random overall gain."""
    points = rng.uniform(-recipe.filter_db, recipe.filter_db, NUM_FILTER_POINTS)
    smooth = np.interp(np.linspace(0, 1, mels), np.linspace(0, 1, NUM_FILTER_POINTS), points)
    return torch.from_numpy(smooth + rng.uniform(*recipe.gain_db)).float()


def mask_bands(log_mel: torch.Tensor, recipe: ClipRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Replaces random bands of (frames, mels) by the example's mean. Source: Park et al. 2019, SpecAugment."""
    masked = log_mel.clone()
    for _ in range(recipe.num_mel_masks):
        width = int(rng.integers(recipe.max_masked_mels + 1))
        start = int(rng.integers(log_mel.shape[1] - width + 1))
        masked[:, start : start + width] = log_mel.mean()
    return masked


def mix_example(
    bank: Sequence[BankedClip], num_classes: int, recipe: ClipRecipe, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One example: log-mel (frames, mels) in dB, clip labels (classes,), frame labels (frames, classes)."""
    num_clips = 2 if rng.random() < recipe.mix_probability else 1
    labels, frame_labels = torch.zeros(num_classes), torch.zeros(recipe.frames, num_classes)
    example = None
    for index in rng.integers(len(bank), size=num_clips):
        log_mel, sounding = crop(bank[index], recipe.frames, rng)
        if example is None:
            example = log_mel
        else:
            shift = level(example) - level(log_mel) + rng.uniform(*recipe.mix_level_db)
            example = add_powers(example, log_mel + shift)
        label = bank[index].label
        labels[label] = 1
        frame_labels[:, label] = torch.maximum(frame_labels[:, label], sounding)
    if rng.random() < recipe.noise_probability:
        example = add_powers(example, colored_bed(example, recipe, rng))
    example = example + random_filter(example.shape[1], recipe, rng)
    return mask_bands(example, recipe, rng), labels, frame_labels


def mix_batch(
    bank: Sequence[BankedClip], num_classes: int, recipe: ClipRecipe, frame_stride: int, rngs: list[np.random.Generator]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One example per generator: (batch, frames, mels) in dB, (batch, classes), (batch, output frames, classes)."""
    examples, labels, frame_labels = zip(*(mix_example(bank, num_classes, recipe, rng) for rng in rngs), strict=True)
    stacked = torch.stack(frame_labels)
    padding = -stacked.shape[1] % frame_stride
    padded = torch.nn.functional.pad(stacked, (0, 0, 0, padding))
    # (batch, output frames x stride, classes)
    pooled = padded.unflatten(1, (-1, frame_stride)).mean(2)
    return torch.stack(examples), torch.stack(labels), pooled
