"""Mixing log-mel examples: powers add, labels follow, activity stays where the sound is."""

import numpy as np
import pytest
import torch
from clip_mixing import BankedClip, ClipRecipe, activity, add_powers, build_bank, crop, level, mask_bands, mix_batch
from data import Clip

from modeling_easysed import EasySEDFeatureExtractor

RATE = 16000
QUIET = ClipRecipe(num_variants=1, frames=40, noise_probability=0.0, gain_db=(0.0, 0.0), filter_db=0.0, num_mel_masks=0)


def tone(label: str, hz: float, onset_s: float = 0.5, offset_s: float = 1.0, duration_s: float = 2.0) -> Clip:
    time = np.arange(int(duration_s * RATE)) / RATE
    samples = np.where((time >= onset_s) & (time < offset_s), 0.3 * np.sin(2 * np.pi * hz * time), 0.0)
    return Clip(samples.astype(np.float32), label, f"{label}.wav")


def bank_of(clips: list[Clip], recipe: ClipRecipe = QUIET) -> list[BankedClip]:
    return build_bank(clips, sorted({clip.label for clip in clips}), EasySEDFeatureExtractor(), recipe, seed=0)


def test_powers_add() -> None:
    ten, twenty = torch.tensor([10.0]), torch.tensor([20.0])
    assert add_powers(ten, ten).item() == pytest.approx(13.0103, abs=1e-3)
    assert add_powers(ten, twenty).item() == pytest.approx(10 * np.log10(110), abs=1e-4)
    assert level(torch.full((2, 5), 10.0)).item() == pytest.approx(20.0, abs=1e-4)  # ten cells of 10 dB


def test_activity_is_where_the_sound_is() -> None:
    active = activity(tone("dog_bark", 1000.0), EasySEDFeatureExtractor(), 200)
    heard = torch.nonzero(active).ravel()
    assert abs(heard[0].item() - 50) <= 2 and abs(heard[-1].item() - 99) <= 2


def test_a_texture_sounds_from_its_first_to_its_last_loud_sample() -> None:
    clip = tone("rain", 1000.0, onset_s=0.3, offset_s=1.7)
    heard = torch.nonzero(activity(clip, EasySEDFeatureExtractor(), 200)).ravel()
    assert abs(heard[0].item() - 30) <= 1 and abs(heard[-1].item() - 169) <= 1


def test_a_clip_without_an_event_counts_as_sounding_throughout() -> None:
    clip = Clip(np.zeros(RATE, np.float32), "dog_bark", "silent.wav")
    assert activity(clip, EasySEDFeatureExtractor(), 100).all()


def test_a_crop_holds_part_of_the_event() -> None:
    clip = bank_of([tone("dog_bark", 1000.0)])[0]
    for seed in range(50):
        example, sounding = crop(clip, 40, np.random.default_rng(seed))
        assert example.shape == (40, 64) and sounding.shape == (40,)
        assert sounding.any()
        loud = example.amax(1) > -40
        assert (loud == (sounding > 0)).float().mean() > 0.9  # a frame or two at the borders


def test_a_mixture_has_both_labels_and_both_sounds() -> None:
    bank = bank_of([tone("a", 500.0), tone("b", 4000.0)])
    recipe = ClipRecipe(**{**vars(QUIET), "mix_probability": 1.0, "mix_level_db": (0.0, 0.0), "frames": 200})
    rngs = [np.random.default_rng([1, i]) for i in range(16)]
    examples, labels, frame_labels = mix_batch(bank, 2, recipe, 4, rngs)
    assert examples.shape == (16, 200, 64) and labels.shape == (16, 2) and frame_labels.shape == (16, 50, 2)
    both = labels.sum(1) == 2
    assert both.any() and not both.all()  # the same clip twice happens, too
    low, high = examples[both][:, :, :16].amax((1, 2)), examples[both][:, :, 48:].amax((1, 2))
    assert ((low - high).abs() < 15).all()
    assert torch.equal(labels, (frame_labels.amax(1) > 0).float())


def test_without_mixing_every_example_has_one_label() -> None:
    bank = bank_of([tone("a", 500.0), tone("b", 4000.0)])
    recipe = ClipRecipe(**{**vars(QUIET), "mix_probability": 0.0})
    _, labels, _ = mix_batch(bank, 2, recipe, 4, [np.random.default_rng(i) for i in range(20)])
    assert (labels.sum(1) == 1).all() and labels.sum(0).min() > 0


def test_an_example_depends_on_its_generator_alone() -> None:
    bank = bank_of([tone("a", 500.0), tone("b", 4000.0)])
    recipe = ClipRecipe(num_variants=1, frames=40)
    alone = mix_batch(bank, 2, recipe, 4, [np.random.default_rng(7)])
    among = mix_batch(bank, 2, recipe, 4, [np.random.default_rng(i) for i in (3, 7, 5)])
    for one, many in zip(alone, among, strict=True):
        assert torch.equal(one[0], many[1])


def test_masks_fill_bands_with_the_mean() -> None:
    log_mel = torch.arange(12.0).reshape(2, 6)
    recipe = ClipRecipe(num_mel_masks=1, max_masked_mels=3)
    masked = mask_bands(log_mel, recipe, np.random.default_rng(0))
    changed = (masked != log_mel).any(0)
    assert (masked[:, changed] == 5.5).all() and changed.sum() <= 3
    assert torch.equal(log_mel, torch.arange(12.0).reshape(2, 6))  # the bank is not touched
