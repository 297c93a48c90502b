"""Small audio files for tests that read labelled data."""

import io
from pathlib import Path

import numpy as np
import soundfile


def audio_bytes(
    frequency_hz: float = 440.0, duration_s: float = 0.5, rate: int = 16000, channels: int = 1, kind: str = "WAV"
) -> bytes:
    """A tone of amplitude 0.5, the same in every channel."""
    tone = 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(duration_s * rate)) / rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.repeat(tone[:, None], channels, axis=1), rate, format=kind)
    return buffer.getvalue()


def write_audio(path: Path, *arguments, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(audio_bytes(*arguments, **options))
