"""Scenes of a rare event, mixed from what `rare_event_data.py` read: to learn from, and to be tested on.

Every scene belongs to one fold: the clip, the background and the old sounds in it are all of that fold, so that a model
trained on the other folds has heard nothing of it. Scene n of a kind is the same for the same seed and data."""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from augment import augment_features
from data import Clip
from distractors import synthetic_clips
from rare_event_data import MIN_EVENT_S, SCENE_S, Positive, RareEventData
from soundscapes import FADE_S, NOISE_BANK_S, Recipe, colored_noise, event_sounds, frame_targets, random_variant
from tqdm import tqdm

from modeling_easysed import EasySEDConfig, EasySEDFeatureExtractor

# Of scenes to learn from; those to be tested on are mixed of the clips as they are, over background alone, with the
# sound as loud as in the validation soundscapes.
NUM_POSITIVE_SCENES, NUM_NEGATIVE_SCENES = 900, 600
NUM_TEST_SCENES = 120
NUM_VARIANTS = 8
SNR_DB, TEST_SNR_DB = (0.0, 28.0), (3.0, 27.0)
NOISE_BED_SHARE = 0.3
BED_GAIN_DB = 6.0
NUM_SYNTHETIC = 120
FAINTEST_BED = 1e-4  # RMS, -80 dBFS: the sound is not drowned in a background of digital silence
PEAK = 0.8
LEVEL_BLOCK_S = 0.1
NOISE_SLOPES_DB = (0.0, -1.5, -3.0, -4.5, -6.0)  # per octave, white to brown
NOISE_LEVELS_DB = (-75.0, -65.0, -55.0, -45.0, -35.0, -25.0)  # against full scale
NUM_NOISES = 4  # recordings per slope and level
KINDS = {"positive": 0, "negative": 1, "test": 2, "noise": 3, "variant": 4}


@dataclass
class Mixture:
    """Samples (samples,), and where the new sound is in them: (onset, offset), seconds."""

    samples: np.ndarray
    events: list[tuple[float, float]]


@dataclass
class SceneSet:
    """Scenes as features, computed once.

    Attributes:
        features: (scenes, frames, mels), normalised, float16.
        targets: (scenes, output frames), share of each frame that the new sound fills.
        events: per scene, (onset, offset) in seconds.
        folds: (scenes,).
        groups: (scenes,) number of the recording of the new sound, -1 for none.
    """

    features: torch.Tensor
    targets: torch.Tensor
    events: list[list[tuple[float, float]]]
    folds: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.events)


class SceneMixer:
    """Mixes scenes of every fold.

    Args:
        data: clips, background, old sounds.
        sampling_rate: of all of them.
        seed: of everything drawn.
    """

    def __init__(self, data: RareEventData, sampling_rate: int, seed: int) -> None:
        self.data, self.rate, self.seed = data, sampling_rate, seed
        self.recipe = Recipe()
        rng = np.random.default_rng([seed, KINDS["variant"]])
        self.sounds = [self._variants(one, rng) for one in data.positives]
        # per clip, per variant, the sounds in it
        bank = round(max(NOISE_BANK_S, 2 * SCENE_S) * sampling_rate)
        self.noises = [colored_noise(bank, slope, rng) for slope in np.linspace(*self.recipe.bed_slope_db, 8)]
        self.distractors = [clip.samples for clip in synthetic_clips(NUM_SYNTHETIC, sampling_rate, seed)]
        self.beds = [np.flatnonzero(data.background_folds == fold) for fold in range(data.num_folds)]
        self.old = [np.flatnonzero(data.rehearsal_folds == fold) for fold in range(data.num_folds)]

    def _variants(self, positive: Positive, rng: np.random.Generator) -> list[list[np.ndarray]]:
        """The clip's sounds as they are, then in filtered and resampled variants."""
        pieces = [positive.samples[round(on * self.rate) : round(off * self.rate)] for on, off in positive.events]
        pieces = [piece for piece in pieces if len(piece) >= MIN_EVENT_S * self.rate / 2]
        others = [[random_variant(piece, self.recipe, rng) for piece in pieces] for _ in range(NUM_VARIANTS - 1)]
        return [pieces, *others]

    def positive(self, number: int, clip: int) -> Mixture:
        """A scene to learn from with one to three sounds of a clip, and others."""
        rng = np.random.default_rng([self.seed, KINDS["positive"], number])
        fold = int(self.data.positive_folds[clip])
        samples, level = self._bed(fold, rng, NOISE_BED_SHARE)
        events: list[tuple[float, float]] = []
        for _ in range(rng.integers(1, 4)):
            variant = self.sounds[clip][rng.integers(NUM_VARIANTS)]
            piece = self._stretch(variant[rng.integers(len(variant))], rng)
            span = place(samples, piece, level * ratio(SNR_DB, rng), self.rate, rng, events)
            events += [] if span is None else [span]
        self._add_others(samples, level, fold, rng)
        return Mixture(limited(samples), sorted(events))

    def negative(self, number: int, fold: int) -> Mixture:
        """A scene to learn from without the new sound: background, synthetic sounds, old sounds."""
        rng = np.random.default_rng([self.seed, KINDS["negative"], number])
        samples, level = self._bed(fold, rng, NOISE_BED_SHARE)
        self._add_others(samples, level, fold, rng)
        self._add_others(samples, level, fold, rng)
        return Mixture(limited(samples), [])

    def test(self, number: int, clip: int) -> Mixture:
        """A scene to be tested on: one sound of a clip as it is, over background of its fold as it is."""
        rng = np.random.default_rng([self.seed, KINDS["test"], number])
        samples, level = self._bed(int(self.data.positive_folds[clip]), rng, 0.0)
        pieces = self.sounds[clip][0]
        piece = self._stretch(pieces[rng.integers(len(pieces))], rng)
        span = place(samples, piece, level * ratio(TEST_SNR_DB, rng), self.rate, rng, [])
        return Mixture(limited(samples), [span])

    def _bed(self, fold: int, rng: np.random.Generator, noise_share: float) -> tuple[np.ndarray, float]:
        """Background of a fold or, in `noise_share` of the cases, coloured noise; and the RMS of its usual level."""
        own, length = self.beds[fold], round(SCENE_S * self.rate)
        if len(own) == 0 or rng.random() < noise_share:
            noise = self.noises[rng.integers(len(self.noises))]
            start = rng.integers(len(noise) - length + 1)
            samples = noise[start : start + length] * ratio(self.recipe.bed_level_db, rng)
        else:
            gain_db = BED_GAIN_DB if noise_share > 0 else 0.0
            samples = self.data.background[rng.choice(own)].astype(np.float32) * ratio((-gain_db, gain_db), rng)
        block = round(LEVEL_BLOCK_S * self.rate)
        squares = np.square(samples[: len(samples) // block * block].reshape(-1, block)).mean(1)
        return samples, max(float(np.sqrt(np.median(squares))), FAINTEST_BED)

    def _stretch(self, piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The sound; of one that lasts, a random stretch, as of a texture."""
        shortest, longest = (round(seconds * self.rate) for seconds in self.recipe.texture_duration_s)
        if len(piece) <= 2 * shortest:
            return piece
        length = int(rng.integers(shortest, min(len(piece), longest) + 1))
        start = int(rng.integers(len(piece) - length + 1))
        return piece[start : start + length]

    def _add_others(self, samples: np.ndarray, level: float, fold: int, rng: np.random.Generator) -> None:
        """Up to two sounds that are not the new one."""
        for _ in range(rng.integers(0, 3)):
            is_old = len(self.old[fold]) > 0 and rng.random() < 0.5
            piece = self._old_sound(fold, rng) if is_old else self.distractors[rng.integers(len(self.distractors))]
            place(samples, piece, level * ratio(SNR_DB, rng), self.rate, rng, [])

    def _old_sound(self, fold: int, rng: np.random.Generator) -> np.ndarray:
        clip = self.data.rehearsal[rng.choice(self.old[fold])]
        found = event_sounds(clip, self.rate, self.recipe)
        return self._stretch(found[rng.integers(len(found))].samples, rng)


def place(
    samples: np.ndarray,
    piece: np.ndarray,
    rms: float,
    sampling_rate: int,
    rng: np.random.Generator,
    taken: list[tuple[float, float]],
) -> tuple[float, float] | None:
    """Adds a sound of that RMS at a random place; its (onset, offset) in seconds, None where it would meet `taken`."""
    piece = piece[: len(samples)]
    start = int(rng.integers(len(samples) - len(piece) + 1))
    onset, offset = start / sampling_rate, (start + len(piece)) / sampling_rate
    if any(on < offset and onset < off for on, off in taken):
        return None
    fade = np.minimum(1.0, np.arange(1, len(piece) + 1) / (FADE_S * sampling_rate))
    gain = rms / max(float(piece.std()), 1e-6)
    samples[start : start + len(piece)] += piece * gain * np.minimum(fade, fade[::-1])
    return onset, offset


def ratio(range_db: tuple[float, float], rng: np.random.Generator) -> float:
    """A factor on amplitudes, uniform in decibels."""
    return 10 ** (rng.uniform(*range_db) / 20)


def limited(samples: np.ndarray) -> np.ndarray:
    """Within full scale, float32."""
    peak = float(np.abs(samples).max())
    return (samples / peak * PEAK if peak > PEAK else samples).astype(np.float32)


# ---- sets of scenes --------------------------------------------------------------------------------------------------


class Featurizer:
    """Turns scenes into a `SceneSet`.

    Args:
        extractor, config: of the base.
        seed: of the augmentation.
    """

    def __init__(self, extractor: EasySEDFeatureExtractor, config: EasySEDConfig, seed: int) -> None:
        self.extractor, self.config, self.seed = extractor, config, seed

    def make(
        self, mixtures: list[Mixture], folds: np.ndarray, groups: np.ndarray, is_augmented: bool, name: str
    ) -> SceneSet:
        """Features and targets of scenes of equal length.

        Args:
            mixtures: the scenes; folds, groups: see `SceneSet`.
            is_augmented: filtered and masked at random, to be learned from.
            name: of the progress bar.
        """
        features, rng = [], np.random.default_rng([self.seed, 6])
        for start in tqdm(range(0, len(mixtures), 16), name, leave=False, disable=not sys.stderr.isatty()):
            samples = torch.from_numpy(np.stack([one.samples for one in mixtures[start : start + 16]]))
            log_mel = self.extractor.log_mel(samples.float())
            if is_augmented:
                log_mel = augment_features(log_mel, rng)
            features.append(self.extractor.normalize(log_mel).half())
        stacked = torch.cat(features)
        # (scenes, frames, mels)
        num_frames = -(-stacked.shape[1] // self.config.frame_stride)
        targets = [self._targets(one, num_frames) for one in mixtures]
        return SceneSet(stacked, torch.from_numpy(np.stack(targets)), [one.events for one in mixtures], folds, groups)

    def _targets(self, mixture: Mixture, num_frames: int) -> np.ndarray:
        events = [(onset, offset, "new", "", 0.0) for onset, offset in mixture.events]
        return frame_targets(events, ["new"], num_frames, self.config.frame_duration_s)[:, 0]


@dataclass
class Scenes:
    """All scenes of a run: to learn from, to be tested on, background as it is, old sounds as they are, noise.

    `tested` is the clip of every scene to be tested on.
    """

    learn: SceneSet
    test: SceneSet
    background: SceneSet
    rehearsal: SceneSet | None
    noise: SceneSet
    tested: list[int]


def make_scenes(mixer: SceneMixer, featurizer: Featurizer) -> Scenes:
    """Mixes and computes everything that a run needs."""
    data, num_clips = mixer.data, len(mixer.data.positives)
    group_numbers = np.array([data.groups.index(one.group) for one in data.positives])
    clips = recordings_in_turn(group_numbers, NUM_POSITIVE_SCENES)
    learn = [mixer.positive(number, clip) for number, clip in enumerate(clips)]
    negative_folds = np.arange(NUM_NEGATIVE_SCENES) % data.num_folds
    learn += [mixer.negative(number, int(fold)) for number, fold in enumerate(negative_folds)]
    learn_folds = np.concatenate([data.positive_folds[clips], negative_folds])
    learn_groups = np.concatenate([group_numbers[clips], np.full(len(negative_folds), -1)])
    tested = recordings_in_turn(group_numbers, max(NUM_TEST_SCENES, num_clips))
    test = [mixer.test(number, clip) for number, clip in enumerate(tested)]
    background = [Mixture(one.astype(np.float32), []) for one in data.background]
    none = np.full(len(background), -1)
    return Scenes(
        featurizer.make(learn, learn_folds, learn_groups, True, "scenes to learn from"),
        featurizer.make(test, data.positive_folds[tested], group_numbers[tested], False, "scenes to be tested on"),
        featurizer.make(background, data.background_folds, none, False, "background"),
        rehearsal_scenes(data, mixer.rate, featurizer),
        featurizer.make(*noise_scenes(mixer.rate, mixer.seed), False, "noise"),
        tested,
    )


def recordings_in_turn(groups: np.ndarray, num: int) -> list[int]:
    """`num` clips, rounded up to equally many of every recording, whose clips take turns."""
    own = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rounds = -(-num // len(own))
    return [int(clips[turn % len(clips)]) for turn in range(rounds) for clips in own]


def rehearsal_scenes(data: RareEventData, sampling_rate: int, featurizer: Featurizer) -> SceneSet | None:
    """Old sounds as they are, joined to scenes fold by fold: recordings of the old classes."""
    length, mixtures, folds = round(SCENE_S * sampling_rate), [], []
    for fold in range(data.num_folds):
        own: list[Clip] = [data.rehearsal[index] for index in np.flatnonzero(data.rehearsal_folds == fold)]
        joined = np.concatenate([clip.samples for clip in own]) if own else np.zeros(0, np.float32)
        starts = range(0, len(joined) - length + 1, length)
        mixtures += [Mixture(joined[start : start + length], []) for start in starts]
        folds += [fold] * len(starts)
    if not mixtures:
        return None
    return featurizer.make(mixtures, np.array(folds), np.full(len(folds), -1), False, "old sounds")


def noise_scenes(sampling_rate: int, seed: int) -> tuple[list[Mixture], np.ndarray, np.ndarray]:
    """Scenes of pure noise of several colours and levels, with the fold -1: nobody learns from them."""
    length, mixtures = round(SCENE_S * sampling_rate), []
    kinds = [(slope, level) for slope in NOISE_SLOPES_DB for level in NOISE_LEVELS_DB] * NUM_NOISES
    for number, (slope_db, level_db) in enumerate(kinds):
        rng = np.random.default_rng([seed, KINDS["noise"], number])
        mixtures.append(Mixture(limited(colored_noise(length, slope_db, rng) * 10 ** (level_db / 20)), []))
    return mixtures, np.full(len(mixtures), -1), np.full(len(mixtures), -1)


__all__ = ["Featurizer", "Mixture", "SceneMixer", "SceneSet", "Scenes", "make_scenes", "noise_scenes"]
