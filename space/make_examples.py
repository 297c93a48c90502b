"""Makes the example sounds of the page, from mathematics and a seed alone: nobody's recording is in them.

    python space/make_examples.py

They sound like what they are called to the ear of a synthesiser at best; what the model makes of them stands in the
table that this prints, and the page says it honestly."""

from pathlib import Path

import numpy as np
import soundfile

RATE, SECONDS, SEED = 16000, 10.0, 0
FOLDER = Path(__file__).resolve().parents[1] / "modeling_easysed" / "app" / "examples"


def filtered_noise(rng: np.random.Generator, num: int, low_hz: float, high_hz: float, tilt: float = 0.0) -> np.ndarray:
    """(num,) noise between two frequencies with `tilt` dB per octave above the lower one, root mean square 1."""
    spectrum = np.fft.rfft(rng.standard_normal(num))
    hz = np.fft.rfftfreq(num, 1 / RATE)
    gain = ((hz >= low_hz) & (hz <= high_hz)) * 10 ** (tilt / 20 * np.log2(np.maximum(hz, low_hz) / low_hz))
    sound = np.fft.irfft(spectrum * gain, num)
    return sound / np.sqrt(np.mean(sound**2))


def faded(sound: np.ndarray, seconds: float = 0.1) -> np.ndarray:
    """Without clicks at its ends."""
    ramp = np.minimum(1.0, np.arange(len(sound)) / (seconds * RATE))
    return sound * ramp * ramp[::-1]


def rain(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A hiss, and thousands of drops."""
    num = round(seconds * RATE)
    drops = np.zeros(num)
    for start in rng.integers(0, num - 200, round(350 * seconds)):
        length = int(rng.integers(30, 200))
        time = np.arange(length) / RATE
        drop = np.exp(-time * 400) * np.sin(2 * np.pi * rng.uniform(1500, 6500) * time)
        drops[start : start + length] += rng.exponential() * drop
    return faded(0.05 * filtered_noise(rng, num, 300, 7800, -1.5) + 0.08 * drops, 0.3)


def helicopter(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Low noise, beaten eleven times a second, over the hum of an engine."""
    num = round(seconds * RATE)
    time = np.arange(num) / RATE
    beat = np.exp(-((((time * 11.0) % 1.0) / 0.22) ** 2))
    noise = filtered_noise(rng, num, 40, 3000, -4.0)
    hum = sum(np.sin(2 * np.pi * 88 * k * time + k) / k for k in range(1, 8))
    return faded(0.22 * noise * (0.12 + beat) + 0.015 * hum, 0.5)


def clock(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Tick and tock, twice a second."""
    num = round(seconds * RATE)
    sound = np.zeros(num)
    for number in range(int(2 * seconds)):
        start = round((0.1 + number / 2) * RATE)
        length = min(round(0.05 * RATE), num - start)
        time = np.arange(max(0, length)) / RATE
        tone = 2600 if number % 2 == 0 else 2150
        tick = np.exp(-time * 220) * (np.sin(2 * np.pi * tone * time) + 0.6 * np.sin(2 * np.pi * 2.7 * tone * time))
        sound[start : start + len(time)] += 0.3 * tick + 0.2 * np.exp(-time * 900) * rng.standard_normal(len(time))
    return sound


def sea(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Noise that swells and breaks."""
    num = round(seconds * RATE)
    time = np.arange(num) / RATE
    swell = np.sin(np.pi * np.minimum(1.0, (time % 4.5) / 4.5)) ** 3
    return faded(filtered_noise(rng, num, 60, 7000, -3.5) * (0.02 + 0.2 * swell), 0.4)


def baby(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Harmonic wails of most of a second with two formants."""
    num = round(seconds * RATE)
    sound = np.zeros(num)
    for start_s in np.arange(0.05, seconds - 0.9, 1.15):
        time = np.arange(round(0.85 * RATE)) / RATE
        pitch = 420 + 90 * np.sin(np.pi * time / 0.85) + 6 * np.sin(2 * np.pi * 7 * time) + rng.uniform(-20, 20)
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        voice = np.zeros(len(time))
        for number in range(1, 15):
            hz = 450 * number
            formants = np.exp(-(((hz - 1150) / 500) ** 2)) + 0.7 * np.exp(-(((hz - 3200) / 700) ** 2))
            voice += (0.08 + formants) * np.sin(number * phase)
        wail = voice * np.sin(np.pi * time / 0.85) ** 0.6 + 0.05 * rng.standard_normal(len(time))
        start = round(start_s * RATE)
        sound[start : start + len(time)] += 0.09 * wail
    return sound


def unknown(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A melody of pure tones: of no class that the model knows."""
    notes = (523, 659, 784, 1047, 784, 659)
    pieces = []
    for number in range(int(seconds / 0.4)):
        time = np.arange(round(0.4 * RATE)) / RATE
        pieces.append(0.2 * np.exp(-3 * time) * np.sin(2 * np.pi * notes[number % len(notes)] * time))
    return np.concatenate(pieces)


def scene(rng: np.random.Generator, parts: list[tuple[float, np.ndarray]]) -> np.ndarray:
    """Parts (onset in seconds, sound) over a faint background, (samples,)."""
    mixture = 0.0015 * filtered_noise(rng, round(SECONDS * RATE), 50, 7500, -3.0)
    for onset, sound in parts:
        start = round(onset * RATE)
        mixture[start : start + len(sound)] += sound[: len(mixture) - start]
    return mixture / max(1.0, np.abs(mixture).max() / 0.95)


def make_all() -> dict[str, np.ndarray]:
    """{name of the file: (samples,)}."""
    rng = np.random.default_rng(SEED)
    return {
        "rain_then_clock": scene(rng, [(0.8, rain(rng, 4.0)), (5.5, clock(rng, 4.0))]),
        "helicopter_then_sea": scene(rng, [(0.5, helicopter(rng, 4.0)), (5.0, sea(rng, 4.8))]),
        "wails_over_rain": scene(rng, [(1.0, rain(rng, 8.0) * 0.4), (2.5, baby(rng, 4.0))]),
        "unknown_melody": scene(rng, [(2.0, unknown(rng, 5.0))]),
        "near_silence": scene(rng, []),
    }


def main() -> None:
    """Writes the files and prints what the bundled models hear in them."""
    from modeling_easysed import BUNDLED_CHECKPOINTS, SoundEventDetectionPipeline

    FOLDER.mkdir(parents=True, exist_ok=True)
    pipes = {name: SoundEventDetectionPipeline.from_pretrained(name) for name in BUNDLED_CHECKPOINTS}
    for name, sound in make_all().items():
        path = FOLDER / f"{name}.ogg"
        soundfile.write(path, sound.astype(np.float32), RATE)
        print(f"{name}: {path.stat().st_size / 1000:.0f} kB")
        for model, pipe in pipes.items():
            found = [
                f"{e.label} {e.onset:.1f}-{e.offset:.1f} {e.confidence:.2f} {e.decision}" for e in pipe(path).events
            ]
            print(f"    {model}: {'; '.join(found) or 'nothing'}")


if __name__ == "__main__":
    main()
