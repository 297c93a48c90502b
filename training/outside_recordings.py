"""An hour of sounds of no target class, 360 recordings of 10 s: what a detector should hear and not accept.

Recorded sounds, chirps, synthetic speech (by the command espeak-ng), noise and silence. The validation split serves
`calibrate.py`, the test split `benchmarks/outside_hour.py`; they share no sound and no text."""

import math
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from data import Clip, decode_clips, load_clips_dataset
from soundscapes import colored_noise

from modeling_easysed.audio_easysed import read_audio

SPLITS = ("validation", "test")
NUM_RECORDINGS = {"outside": 126, "chirps": 60, "speech": 60, "noise": 60, "silence": 54}  # 360 x 10 s = 1 h
SAMPLING_RATE, NUM_SAMPLES = 16000, 160000
BED_LEVEL_DB, BED_SLOPE_DB = (-66.0, -33.0), (-6.5, 0.0)  # kept apart from the training recipe: that may change
NOISE_LEVEL_DB, SILENCE_LEVEL_DB, NOISE_SLOPE_DB = (-66.0, -20.0), (-110.0, -80.0), (-6.02, 0.0)  # dBFS; brown to white
SNR_DB, PEAK, FADE_S = (3.0, 27.0), 0.8, 0.01  # the sounds' level over the bed as in DATA/soundscapes
VARIANTS = ("m1", "m3", "m5", "m7", "f1", "f2", "f3", "f4", "f5", "croak", "whisper")
SPOKEN = (  # voice and text; every second one belongs to "validation", the others to "test"
    ("en-gb", "Our offices are closed today. Leave your name and number, and we will call you back, thank you."),
    ("en-us", "Seventeen boxes of letters were found in the attic. Which platform does the train leave from?"),
    ("de", "Zwei Brötchen, ein Stück Käse und eine Zeitung, das macht acht Euro. Schönen Tag noch!"),
    ("de", "Der Zug nach Bremen hat heute zehn Minuten Verspätung. Wo ist denn hier die nächste Apotheke?"),
    ("fr-fr", "Le musée ouvre ses portes à dix heures, sauf le mardi. Pourriez-vous répéter la question ?"),
    ("fr-be", "Nous avons marché toute la journée le long du canal. Il faisait un temps magnifique."),
)


def outside_recordings(data_dir: str | Path, split: str, seed: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """The hour: (name, kind, samples (160000,) float32 at 16 kHz within full scale), always the same for a seed >= 0.

    `split` is "validation" or "test": which sounds of data_dir and which texts; the rest is drawn anew too.
    Raises ValueError for an unknown or empty split, OSError for missing files and a failing espeak-ng.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    clips = decode_clips(load_clips_dataset(data_dir, "split", [split]), SAMPLING_RATE)
    makers = {"outside": partial(unknown_sound, clips), "speech": partial(speech, SPOKEN[SPLITS.index(split) :: 2])}
    makers |= {"chirps": chirps, "noise": noise, "silence": partial(noise, silent=True)}
    for kind, count in planned_recordings().items():
        for number in range(count):
            rng = np.random.default_rng([seed, SPLITS.index(split), list(NUM_RECORDINGS).index(kind), number])
            detail, samples = makers[kind](number, rng)
            yield f"{kind}_{number:03d}_{detail}", kind, samples.astype(np.float32)


def sound_of(name: str) -> str:
    """What sounds in a recording of this name: the recorded sound, which recurs; else the recording itself."""
    kind, _, sound = name.split("_", 2)
    return sound if kind == "outside" else name


def planned_recordings() -> dict[str, int]:
    """How many recordings of each kind; without espeak-ng chirps take the place of speech."""
    counts = dict(NUM_RECORDINGS)
    if shutil.which("espeak-ng") is None:
        counts["chirps"] += counts.pop("speech")
    return counts


def unknown_sound(clips: list[Clip], number: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    clip = clips[number % len(clips)]
    return Path(clip.source).stem, over_noise(clip.samples, rng)


def chirps(number: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """A sweep over 1 to 4 octaves: exponential or linear, down or up, repeated or once, all eight in turn."""
    exponential, down, repeated = number & 1, number & 2, number & 4
    length = int(rng.uniform(0.2, 1.5 if repeated else 6.0) * SAMPLING_RATE)
    low = math.exp(rng.uniform(math.log(100), math.log(2000)))
    frequency = (np.geomspace if exponential else np.linspace)(low, min(low * 2 ** rng.uniform(1, 4), 7500), length)
    tone = faded(np.sin(2 * np.pi * np.cumsum(frequency[::-1] if down else frequency) / SAMPLING_RATE))
    if repeated:
        tone = np.tile(np.pad(tone, (0, int(rng.uniform(0, 0.5) * SAMPLING_RATE))), rng.integers(2, 7))
    shape = f"{'exponential' if exponential else 'linear'}_{'down' if down else 'up'}_{'often' if repeated else 'once'}"
    return shape, over_noise(tone, rng)


def speech(texts: tuple[tuple[str, str], ...], number: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """The texts in turn, by a random variant of their voice at a random pitch and speed."""
    language, text = texts[number % len(texts)]
    voice, pitch, words_per_minute = f"{language}+{rng.choice(VARIANTS)}", rng.integers(15, 90), rng.integers(120, 230)
    command = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(words_per_minute), "--stdout", text]
    spoken = subprocess.run(command, capture_output=True)
    if spoken.returncode != 0:
        raise OSError(f"{shlex.join(command)} failed, reinstall espeak-ng: {spoken.stderr.decode(errors='replace')}")
    return voice, over_noise(read_audio(spoken.stdout, SAMPLING_RATE).samples, rng)


def noise(number: int, rng: np.random.Generator, silent: bool = False) -> tuple[str, np.ndarray]:
    """White to brown noise; `silent`: inaudible, and every third recording digital zeros."""
    level_db, slope_db = rng.uniform(*(SILENCE_LEVEL_DB if silent else NOISE_LEVEL_DB)), rng.uniform(*NOISE_SLOPE_DB)
    if silent and number % 3 == 0:
        return "zeros", np.zeros(NUM_SAMPLES)
    samples = colored_noise(NUM_SAMPLES, slope_db, rng) * 10 ** (level_db / 20)
    return f"{level_db:.0f}_dBFS_{slope_db:.1f}_dB_per_octave", samples


def over_noise(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sound (samples,), cut to 10 s, at a random place and level over a random noise bed (160000,)."""
    bed_rms = 10 ** (rng.uniform(*BED_LEVEL_DB) / 20)
    samples = colored_noise(NUM_SAMPLES, rng.uniform(*BED_SLOPE_DB), rng) * bed_rms
    piece = faded(sound[:NUM_SAMPLES])
    start = rng.integers(NUM_SAMPLES - len(piece) + 1)
    gain = bed_rms * 10 ** (rng.uniform(*SNR_DB) / 20) / max(float(piece.std()), 1e-6)
    samples[start : start + len(piece)] += piece * gain
    return samples * min(1.0, PEAK / float(np.abs(samples).max()))


def faded(samples: np.ndarray) -> np.ndarray:
    fade = np.minimum(1.0, np.arange(1, len(samples) + 1) / (FADE_S * SAMPLING_RATE))
    return samples * np.minimum(fade, fade[::-1])


__all__ = [
    "NUM_RECORDINGS",
    "NUM_SAMPLES",
    "SAMPLING_RATE",
    "SPLITS",
    "outside_recordings",
    "planned_recordings",
    "sound_of",
]
