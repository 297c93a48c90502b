"""Synthetic sounds of no target class: what a detector should hear and leave alone.

Recorded sounds outside the classes are few; these add notes, chords, metal, drum loops, sweeps, syllables and bursts
with random pitches, envelopes and rhythms. Steady noise is left out (it is the soundscapes' bed), and so are lone
clicks (clocks and fires click). As a command it writes some of them to listen to:

    python training/distractors.py --num 24 --out DIR
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from data import Clip

DURATION_S = (0.3, 4.0)
FORMANTS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
# Source of the formants (a, i, u, e, o of men): Peterson & Barney 1952, JASA.


def synthetic_clips(num: int, sampling_rate: int, seed: int) -> list[Clip]:
    """`num` clips without a label, peak 0.5, of all kinds in turn; the same for the same seed."""
    kinds = list(KINDS.items())
    clips = []
    for number in range(num):
        rng = np.random.default_rng([seed, 4, number])
        name, make = kinds[number % len(kinds)]
        time = np.arange(int(np.exp(rng.uniform(*np.log(DURATION_S))) * sampling_rate)) / sampling_rate
        samples = make(time, rng)
        samples = 0.5 * samples / max(float(np.abs(samples).max()), 1e-9)
        clips.append(Clip(samples.astype(np.float32), None, f"synthetic-{name}-{number}"))
    return clips


def _decay(time: np.ndarray, half_life_s: float, attack_s: float = 0.005) -> np.ndarray:
    return np.minimum(1.0, time / attack_s) * 0.5 ** (time / half_life_s)


def _swept(time: np.ndarray, frequency_hz: np.ndarray) -> np.ndarray:
    """Sine of a frequency (samples,) that changes over time."""
    return np.sin(2 * np.pi * np.cumsum(frequency_hz) * (time[1] - time[0]))


def _filtered_noise(time: np.ndarray, low_hz: float, high_hz: float, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(len(time)))
    frequency = np.fft.rfftfreq(len(time), time[1] - time[0])
    return np.fft.irfft(spectrum * ((frequency >= low_hz) & (frequency <= high_hz)), len(time))


def _tone(time: np.ndarray, pitch_hz: float, rng: np.random.Generator, stretch: float = 1.0) -> np.ndarray:
    """Harmonics below 7 kHz with falling levels; a stretch other than 1 makes them inharmonic, like metal."""
    brightness = rng.uniform(0.4, 2.0)
    total = np.zeros(len(time))
    for number in range(1, 25):
        frequency = pitch_hz * number**stretch
        if frequency < 7000:
            total += np.sin(2 * np.pi * frequency * time + rng.uniform(0, 6.28)) / number**brightness
    return total


def notes(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One plucked or held note, or a chord of up to four, with vibrato of the level."""
    total = np.zeros(len(time))
    root = np.exp(rng.uniform(np.log(60), np.log(1200)))
    for _ in range(rng.integers(1, 5)):
        start = rng.uniform(0, time[-1] * 0.6) if rng.random() < 0.6 else 0.0
        own = np.maximum(time - start, 0)
        level = _decay(own, rng.uniform(0.05, 2.0), rng.choice([0.003, 0.1])) * (time >= start)
        total += level * _tone(own, root * 2 ** (rng.integers(-12, 13) / 12), rng)
    return total * (1 + rng.uniform(0, 0.5) * np.sin(2 * np.pi * rng.uniform(2, 9) * time))


def metal(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bells and cymbals: inharmonic partials over a hiss that dies away."""
    ring = _tone(time, np.exp(rng.uniform(np.log(150), np.log(900))), rng, stretch=rng.uniform(1.1, 1.5))
    hiss = _filtered_noise(time, rng.uniform(2000, 4500), 8000, rng) * rng.uniform(0, 3)
    return (ring + hiss) * _decay(time, rng.uniform(0.1, 1.5))


def drums(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A loop of two or three kinds of hits on a regular grid."""
    step = 60 / rng.uniform(70, 180) / 4
    total = np.zeros(len(time))
    for _ in range(rng.integers(1, 4)):
        hit = _hit(time, rng)
        pattern = rng.random(16) < rng.uniform(0.2, 0.6)
        for number in range(int(time[-1] / step) + 1):
            start = int(number * step / (time[1] - time[0]))
            if pattern[number % 16] and start < len(time):
                total[start:] += rng.uniform(0.5, 1) * hit[: len(time) - start]
    return total if total.any() else _hit(time, rng)


def _hit(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(40, 400) * (1 + rng.uniform(0, 4) * 0.5 ** (time / 0.02))
    low = rng.uniform(200, 5000)
    noise = _filtered_noise(time, low, low + rng.uniform(800, 4000), rng) * _decay(time, rng.uniform(0.01, 0.15))
    return rng.uniform(0, 1) * _swept(time, pitch) * _decay(time, rng.uniform(0.02, 0.2)) + rng.uniform(0, 2) * noise


def sweep(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chirps: a pitch that glides or wobbles, once or again and again, pure or with harmonics."""
    start, stop = np.exp(rng.uniform(np.log(150), np.log(6000), size=2))
    phase = (time * rng.uniform(0.3, 6)) % 1.0 if rng.random() < 0.5 else time / time[-1]
    frequency = (
        start * (stop / start) ** phase * (1 + rng.uniform(0, 0.05) * np.sin(2 * np.pi * rng.uniform(3, 30) * time))
    )
    tone = _swept(time, frequency)
    return np.tanh(rng.uniform(0.2, 4) * tone) * np.minimum(1, time / 0.01)


def syllables(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Speech-like: a buzz with a moving pitch through the formants of changing vowels, hisses in between."""
    rate = 1 / (time[1] - time[0])
    pitch = rng.uniform(80, 280) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.3, 3) * time + rng.uniform(0, 6)))
    buzz = np.diff((np.cumsum(pitch) / rate) % 1.0, prepend=0) < 0
    total = np.zeros(len(time))
    borders = [0, *np.cumsum(rng.uniform(0.08, 0.3, size=60) * rate).astype(int)]
    for start, stop in zip(borders, borders[1:], strict=False):
        length = min(stop, len(time)) - start
        if length < 64:
            break
        frequency = np.fft.rfftfreq(length, 1 / rate)
        formants = FORMANTS_HZ[rng.integers(len(FORMANTS_HZ))]
        gain = sum(1 / (1 + ((frequency - f) / 90) ** 2) / (n + 1) for n, f in enumerate(formants))
        source = buzz[start : start + length].astype(float)
        if rng.random() < 0.25:
            gain, source = (frequency > rng.uniform(1500, 4000)) * 1.0, 0.02 * rng.standard_normal(length)
        elif rng.random() < 0.15:
            source = 0.0 * source
        total[start : start + length] = np.fft.irfft(np.fft.rfft(source) * gain, length) * np.hanning(length) ** 0.5
    return total


def burst(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A band of noise or of rough electronic tone with an envelope of a few random steps."""
    low = np.exp(rng.uniform(np.log(80), np.log(4000)))
    rough = np.sign(_swept(time, np.full(len(time), low))) * rng.standard_normal() + _tone(time, 1.01 * low, rng)
    base = _filtered_noise(time, low, low * rng.uniform(1.3, 3), rng) if rng.random() < 0.4 else rough
    steps = rng.uniform(0, 1, size=rng.integers(3, 9)) ** 2
    envelope = np.interp(time / time[-1], np.linspace(0, 1, len(steps) + 2), [0, *steps, 0])
    return base * envelope


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "notes": notes,
    "metal": metal,
    "drums": drums,
    "sweep": sweep,
    "syllables": syllables,
    "burst": burst,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for clip in synthetic_clips(arguments.num, 16000, arguments.seed):
        soundfile.write(arguments.out / f"{clip.source}.wav", clip.samples, 16000)
    print(f"wrote {arguments.num} sounds to {arguments.out}")


if __name__ == "__main__":
    main()
