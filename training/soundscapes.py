"""Strongly labelled soundscapes from isolated clips: find the events in a clip, mix some of them over a noise bed.

Mixing is on the fly and reproducible: soundscape number n of seed s is always the same. As a command it writes a fixed
set with its TSV:

    python training/soundscapes.py --data ../shared/data/esc10 --folds 1,2,3 --num 100 --seed 0 --out DIR"""

import argparse
import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from data import Clip, decode_clips, load_clips_dataset
from tqdm import tqdm

ENVELOPE_HOP_S = 0.01
ENVELOPE_WINDOW_S = 0.02
NOISE_BANK_S = 60.0
FADE_S = 0.01
RESAMPLING_BASE = 16000  # only the ratio of the two rates counts
SILENCE_DB = -75.0  # envelope of digital silence and of what a lossy codec leaves in it
BACKGROUND_MARGIN_DB = 10.0
MIN_PROMINENCE_DB = 15.0


@dataclass
class Recipe:
    """How soundscapes are mixed; ranges are uniform, in seconds and decibels.

    Attributes:
        duration_s: length of a soundscape.
        num_events: weights of 0, 1, 2, ... events.
        max_polyphony: events that may sound at once.
        snr_db: event RMS over bed RMS.
        bed_level_db: bed RMS against full scale.
        bed_slope_db: spectral slope of the bed per octave.
        textures: classes without a beginning or an end of their own: a random stretch of the clip is the event.
        texture_duration_s: length of that stretch.
        blend_probability: share of those stretches that are two clips of the class at once, with the second one
            blend_level_db over the first: two rains are a rain that nobody recorded.
        threshold_db: an event is where the envelope is less than this below the clip's peak.
        gap_s: pauses up to this length belong to the event, by class; `default_gap_s` for the others.
        min_duration_s: shorter stretches are no events.
        num_outside: weights of 0, 1, 2, ... sounds of no target class mixed in, unlabelled.
        num_variants: filtered and resampled variants made of every clip (1 = the clip itself alone).
        max_speed_change: a variant plays between 1 / (1 + x) and (1 + x) times as fast.
        max_filter_db: strength of a variant's random smooth filter.
        reverb_probability: share of the variants that sound in a room; 0 = none do.
        reverb_s: seconds in which the echoes fall by 60 dB; reverb_db: their energy over the direct sound.
    """

    duration_s: float = 10.0
    num_events: list[float] = field(default_factory=lambda: [0.06, 0.22, 0.28, 0.24, 0.14, 0.06])
    max_polyphony: int = 3
    snr_db: tuple[float, float] = (0.0, 28.0)
    bed_level_db: tuple[float, float] = (-66.0, -33.0)
    bed_slope_db: tuple[float, float] = (-6.5, 0.0)
    textures: list[str] = field(
        default_factory=lambda: ["chainsaw", "fire_crackling", "helicopter", "rain", "sea_waves"]
    )
    texture_duration_s: tuple[float, float] = (2.0, 5.0)
    blend_probability: float = 0.0
    blend_level_db: tuple[float, float] = (-10.0, 0.0)
    threshold_db: float = 30.0
    gap_s: dict[str, float] = field(default_factory=lambda: {"baby_cry": 0.5, "clock_tick": 1.0})
    default_gap_s: float = 0.3
    min_duration_s: float = 0.08
    num_outside: list[float] = field(default_factory=lambda: [0.45, 0.35, 0.2])
    num_variants: int = 8
    max_speed_change: float = 0.2
    max_filter_db: float = 8.0
    reverb_probability: float = 0.0
    reverb_s: tuple[float, float] = (0.15, 0.8)
    reverb_db: tuple[float, float] = (-15.0, 0.0)


@dataclass
class EventSound:
    """A stretch of a clip that may be mixed in: samples (samples,), its label (None = no target class), its source."""

    samples: np.ndarray
    label: str | None
    source: str


@dataclass
class Soundscape:
    """Samples (samples,) and what sounds in them: (onset, offset, label, source, snr_db), times in seconds."""

    samples: np.ndarray
    events: list[tuple[float, float, str, str, float]]


def find_events(
    samples: np.ndarray, sampling_rate: int, threshold_db: float, gap_s: float, min_duration_s: float
) -> list[tuple[float, float]]:
    """Stretches of a clip that lie less than `threshold_db` below its loudest 20 ms.

    Where the background (10th percentile) is that loud itself, the threshold rises a margin above it.

    Returns:
        (onset, offset) in seconds, in order; pauses up to `gap_s` are inside.
    """
    hop, window = int(ENVELOPE_HOP_S * sampling_rate), int(ENVELOPE_WINDOW_S * sampling_rate)
    if len(samples) < window:
        return []
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    level = 10.0 * np.log10(np.square(frames).mean(-1) + 1e-12)
    background = min(np.percentile(level, 10) + BACKGROUND_MARGIN_DB, level.max() - MIN_PROMINENCE_DB)
    threshold = max(level.max() - threshold_db, background, SILENCE_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], level > threshold, [False]]))).reshape(-1, 2)
    events: list[list[int]] = []
    for start, end in edges:
        if events and (start - events[-1][1]) * ENVELOPE_HOP_S <= gap_s:
            events[-1][1] = end
        else:
            events.append([start, end])
    seconds = [(start * ENVELOPE_HOP_S, end * ENVELOPE_HOP_S) for start, end in events]
    return [(start, end) for start, end in seconds if end - start >= min_duration_s]


def event_sounds(clip: Clip, sampling_rate: int, recipe: Recipe) -> list[EventSound]:
    """The events of a clip: what `find_events` finds; the whole clip without silence at its ends for a texture."""
    if clip.label is None:
        limit = int(recipe.texture_duration_s[1] * sampling_rate)
        return [EventSound(clip.samples[:limit], None, clip.source)]
    if clip.label in recipe.textures:
        return [EventSound(trim_silence(clip.samples), clip.label, clip.source)]
    gap_s = recipe.gap_s.get(clip.label, recipe.default_gap_s)
    found = find_events(clip.samples, sampling_rate, recipe.threshold_db, gap_s, recipe.min_duration_s)
    return [
        EventSound(clip.samples[int(on * sampling_rate) : int(off * sampling_rate)], clip.label, clip.source)
        for on, off in found
    ]


def trim_silence(samples: np.ndarray) -> np.ndarray:
    """Cuts digital silence off both ends."""
    loud = np.flatnonzero(np.abs(samples) > 10 ** (SILENCE_DB / 20))
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def colored_noise(num_samples: int, slope_db: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise whose spectrum falls by `slope_db` per octave, RMS 1."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    bins = np.maximum(np.arange(len(spectrum)), num_samples / 800)  # flat below 20 Hz at 16 kHz
    noise = np.fft.irfft(spectrum * bins ** (slope_db / 6.02), num_samples)
    return (noise / noise.std()).astype(np.float32)


def random_variant(samples: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """A clip played a little faster or slower, through a random smooth filter, perhaps in a room."""
    limit = np.log1p(recipe.max_speed_change)
    speed = np.exp(rng.uniform(-limit, limit))
    samples = soxr.resample(samples, round(RESAMPLING_BASE * speed), RESAMPLING_BASE)
    points = rng.uniform(-recipe.max_filter_db, recipe.max_filter_db, size=6)
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.maximum(np.arange(len(spectrum)) / len(spectrum), 2**-7)) / 7 + 1
    gain_db = np.interp(octave, np.linspace(0, 1, len(points)), points)
    filtered = np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(samples)).astype(np.float32)
    if recipe.reverb_probability > 0 and rng.random() < recipe.reverb_probability:
        filtered = reverberated(filtered, rng.uniform(*recipe.reverb_s), rng.uniform(*recipe.reverb_db), rng)
    return filtered


def reverberated(samples: np.ndarray, reverb_s: float, reverb_db: float, rng: np.random.Generator) -> np.ndarray:
    """The direct sound and a tail of dense echoes, of the same length as `samples` (at 16 kHz).

    Source: Moorer 1979, About This Reverberation Business: noise that decays exponentially sounds like a room.
    """
    num_taps = int(reverb_s * RESAMPLING_BASE)
    echoes = rng.standard_normal(num_taps) * 10 ** (-3 * np.arange(num_taps) / num_taps)
    echoes *= 10 ** (reverb_db / 20) / np.sqrt(np.square(echoes).sum())
    echoes[0] = 1.0
    length = len(samples) + num_taps
    wet = np.fft.irfft(np.fft.rfft(samples, length) * np.fft.rfft(echoes, length), length)
    return wet[: len(samples)].astype(np.float32)


class SoundscapeMixer:
    """Mixes soundscapes from clips.

    Args:
        clips: labelled clips; clips with label None may be mixed in as sounds of no target class.
        sampling_rate: Hz of the clips and of the soundscapes.
        recipe: how to mix.
        seed: of the clips' variants and of the noise bank.

    Raises:
        ValueError: when no clip holds an event.
    """

    def __init__(self, clips: list[Clip], sampling_rate: int, recipe: Recipe, seed: int = 0) -> None:
        self.sampling_rate = sampling_rate
        self.recipe = recipe
        rng = np.random.default_rng([seed, 1])
        sounds: dict[str | None, list[list[EventSound]]] = {}
        for clip in tqdm(clips, desc="finding events", disable=not sys.stderr.isatty()):
            for variant in self._variants(clip, rng):
                found = event_sounds(variant, sampling_rate, recipe)
                if found:
                    sounds.setdefault(clip.label, []).append(found)
        self.outside = sounds.pop(None, [])
        self.sounds = sounds
        self.labels = sorted(label for label in sounds if label is not None)
        if not self.labels:
            raise ValueError(f"no events found in {len(clips)} clips: lower threshold_db={recipe.threshold_db}?")
        num_noise = int(NOISE_BANK_S * sampling_rate)
        slopes = np.linspace(*recipe.bed_slope_db, 12)
        self.noises = [colored_noise(num_noise, slope, rng) for slope in slopes]

    def _variants(self, clip: Clip, rng: np.random.Generator) -> list[Clip]:
        variants = [clip]
        for _ in range(self.recipe.num_variants - 1):
            variants.append(Clip(random_variant(clip.samples, self.recipe, rng), clip.label, clip.source))
        return variants

    def mix(self, seed: int, number: int) -> Soundscape:
        """Soundscape `number` of `seed`: samples within full scale, and its events in order of onset."""
        rng = np.random.default_rng([seed, 2, number])
        recipe = self.recipe
        samples = self._bed(rng)
        bed_rms = float(samples.std())
        events: list[tuple[float, float, str, str, float]] = []
        for _ in range(_draw_count(recipe.num_events, rng)):
            sound = self._pick(str(rng.choice(self.labels)), rng)
            event = self._place(samples, sound, events, bed_rms, rng)
            if event is not None:
                events.append(event)
        for _ in range(_draw_count(recipe.num_outside, rng) if self.outside else 0):
            self._place(samples, self.outside[rng.integers(len(self.outside))][0], [], bed_rms, rng)
        peak = np.abs(samples).max()
        return Soundscape(samples / peak * 0.8 if peak > 0.8 else samples, sorted(events))

    def _bed(self, rng: np.random.Generator) -> np.ndarray:
        length = int(self.recipe.duration_s * self.sampling_rate)
        noise = self.noises[rng.integers(len(self.noises))]
        start = rng.integers(len(noise) - length + 1)
        return noise[start : start + length] * 10 ** (rng.uniform(*self.recipe.bed_level_db) / 20)

    def _pick(self, label: str, rng: np.random.Generator) -> EventSound:
        recipe = self.recipe
        if label not in recipe.textures:
            return self._any_sound(label, rng)
        length = int(rng.uniform(*recipe.texture_duration_s) * self.sampling_rate)
        sound = self._stretch(label, length, rng)
        if recipe.blend_probability > 0 and rng.random() < recipe.blend_probability:
            other = self._stretch(label, len(sound.samples), rng).samples
            gain = float(sound.samples.std()) / max(float(other.std()), 1e-6)
            blend = sound.samples.copy()
            blend[: len(other)] += other * gain * 10 ** (rng.uniform(*recipe.blend_level_db) / 20)
            sound = EventSound(blend, label, sound.source)
        return sound

    def _any_sound(self, label: str, rng: np.random.Generator) -> EventSound:
        found = self.sounds[label][rng.integers(len(self.sounds[label]))]
        return found[rng.integers(len(found))]

    def _stretch(self, label: str, length: int, rng: np.random.Generator) -> EventSound:
        """A random stretch of a texture, of at most `length` samples."""
        sound = self._any_sound(label, rng)
        start = rng.integers(max(len(sound.samples) - length, 0) + 1)
        return EventSound(sound.samples[start : start + length], label, sound.source)

    def _place(
        self,
        samples: np.ndarray,
        sound: EventSound,
        events: list[tuple[float, float, str, str, float]],
        bed_rms: float,
        rng: np.random.Generator,
    ) -> tuple[float, float, str, str, float] | None:
        """Adds the sound to `samples` in place; None when it does not fit beside the events there."""
        rate = self.sampling_rate
        piece = sound.samples[: len(samples)]
        start = int(rng.integers(len(samples) - len(piece) + 1))
        onset, offset = start / rate, (start + len(piece)) / rate
        meeting = [event for event in events if event[0] < offset and onset < event[1]]
        if len(meeting) >= self.recipe.max_polyphony or any(event[2] == sound.label for event in meeting):
            return None
        snr_db = rng.uniform(*self.recipe.snr_db)
        gain = bed_rms * 10 ** (snr_db / 20) / max(float(piece.std()), 1e-6)
        fade = np.minimum(1.0, np.arange(1, len(piece) + 1) / (FADE_S * rate))
        samples[start : start + len(piece)] += piece * gain * np.minimum(fade, fade[::-1])
        return (round(onset, 3), round(offset, 3), str(sound.label), sound.source, round(snr_db, 1))


def _draw_count(weights: list[float], rng: np.random.Generator) -> int:
    """0, 1, 2, ... with the given weights."""
    return int(rng.choice(len(weights), p=np.array(weights) / sum(weights)))


def frame_targets(
    events: list[tuple[float, float, str, str, float]],
    labels: list[str],
    num_frames: int,
    frame_duration_s: float,
) -> np.ndarray:
    """Frame labels (num_frames, classes): the share of frame k, [(k - 1/2) d, (k + 1/2) d], that the event fills."""
    targets = np.zeros((num_frames, len(labels)), dtype=np.float32)
    borders = (np.arange(num_frames + 1) - 0.5) * frame_duration_s
    for onset, offset, label, *_ in events:
        overlap = np.minimum(borders[1:], offset) - np.maximum(borders[:-1], onset)
        column = labels.index(label)
        targets[:, column] = np.maximum(targets[:, column], np.clip(overlap / frame_duration_s, 0, 1))
    return targets


def write_soundscapes(mixer: SoundscapeMixer, num: int, seed: int, out: Path, split: str) -> None:
    """Writes `num` soundscapes to out/audio/split and their table to out/split.tsv."""
    folder = out / "audio" / split
    folder.mkdir(parents=True, exist_ok=True)
    with (out / f"{split}.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["filename", "onset", "offset", "event_label", "source", "snr_db"])
        for number in tqdm(range(num), desc="mixing", disable=not sys.stderr.isatty()):
            soundscape = mixer.mix(seed, number)
            name = f"{split}_{number:04d}.flac"
            soundfile.write(folder / name, soundscape.samples, mixer.sampling_rate)
            for event in soundscape.events or [("", "", "", "", "")]:
                writer.writerow([name, *event])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with metadata.csv (file_name, label, fold)")
    parser.add_argument("--folds", default="1,2,3", help="folds whose clips are mixed")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train", help="name of the set: out/SPLIT.tsv, out/audio/SPLIT")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    clips = decode_clips(load_clips_dataset(arguments.data, "fold", arguments.folds.split(",")), 16000)
    mixer = SoundscapeMixer(clips, 16000, Recipe(num_variants=1), arguments.seed)
    write_soundscapes(mixer, arguments.num, arguments.seed, arguments.out, arguments.split)
    print(f"wrote {arguments.num} soundscapes to {arguments.out}")


if __name__ == "__main__":
    main()
