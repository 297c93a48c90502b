"""A tiny rare event: folders of tones as clips of a new sound and of noise as background, in seconds."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def tone(frequency_hz: float, seed: int, duration_s: float = 1.0) -> np.ndarray:
    """Half a second of a tone in the middle of faint noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(duration_s * RATE)) / RATE
    is_on = np.abs(time - duration_s / 2) < 0.25
    samples = 0.001 * rng.standard_normal(len(time)) + 0.5 * is_on * np.sin(2 * np.pi * frequency_hz * time)
    return samples.astype(np.float32)


def noise(seed: int, duration_s: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.02 * rng.standard_normal(int(duration_s * RATE))).astype(np.float32)


def write_positives(folder: Path, num: int = 6) -> Path:
    """Clips of tones around 2 kHz, each a recording of its own."""
    folder.mkdir(parents=True)
    for number in range(num):
        soundfile.write(folder / f"beep{number}x.wav", tone(1900 + 40 * number, number), RATE)
    return folder


def write_background(folder: Path, num: int = 6, duration_s: float = 12.0) -> Path:
    folder.mkdir(parents=True)
    for number in range(num):
        soundfile.write(folder / f"field{number}x.wav", noise(100 + number, duration_s), RATE)
    return folder


def write_rehearsal(folder: Path, labels: list[str], num: int = 6) -> Path:
    """Clips of low tones under the names of old classes, five seconds each, with metadata.csv."""
    folder.mkdir(parents=True)
    rows = ["file_name,label"]
    for number in range(num):
        soundfile.write(folder / f"old{number}x.wav", tone(300 + 60 * number, 50 + number, 5.0), RATE)
        rows.append(f"old{number}x.wav,{labels[number % len(labels)]}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_split(folder: Path, split: str, labels: list[str], num: int) -> Path:
    """Recordings of two seconds of noise in which the classes sound all the time, the last one without any."""
    (folder / "audio" / split).mkdir(parents=True)
    rows = ["filename\tonset\toffset\tevent_label"]
    for number in range(num):
        soundfile.write(folder / "audio" / split / f"{number}.wav", noise(200 + number, 2.0), RATE)
        rows += [f"{number}.wav\t0.0\t2.0\t{label}" for label in labels if number < num - 1]
    rows.append(f"{num - 1}.wav\t\t\t")
    (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return folder
